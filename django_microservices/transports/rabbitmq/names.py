"""Names that callers and peers give, before they become routing keys."""

import base64
from functools import lru_cache
from hashlib import blake2b

from ...wire.patterns import Pattern
from ...wire.text import shown
from .frames import LONGEST

_WILDCARDS = frozenset("*#")
_FIRST_PRINTABLE, _DELETE = " ", "\x7f"
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""A queue that is none: whoever consumes it gets what answers its own messages."""
_DIRECT = DIRECT_REPLY_TO.encode() + b"."
_GENERATED = b"amq.gen-"
"""How the names begin that the broker makes, of queues that belong to one client."""

_EXTERNAL = 131  # how Erlang's external format begins
_PROCESSES = {88: 12, 103: 9}  # bytes of its numbers: NEW_PID_EXT, PID_EXT
_ATOMS = {100: 2, 118: 2, 119: 1}  # bytes of the size of its node's name
_LEAST = 3
_DIGEST_SIZE = 8


def routing_key(pattern: Pattern) -> str:
    """Return the routing key of a message: the pattern's route.

    Raises ``ValueError`` for a pattern that cannot be one, or that means something else
    to those who bind it.
    """
    check_is_concrete(pattern)
    return binding_key(pattern)


def check_is_concrete(pattern: Pattern) -> None:
    """Raise ``ValueError`` for a message whose pattern has wildcards."""
    if any(word in _WILDCARDS for word in pattern.route.split(".")):
        message = f"{shown(pattern.route)}: a message has no wildcards in its pattern."
        raise ValueError(message)


def binding_key(pattern: Pattern) -> str:
    """Return by which key a queue is bound for a pattern, wildcards and all."""
    key = pattern.route
    if not key or any(c < _FIRST_PRINTABLE or c == _DELETE for c in key):
        message = f"{shown(key)!r}: a routing key has text, and no control characters."
        raise ValueError(message)
    if len(key.encode(errors="surrogatepass")) > LONGEST:
        message = f"{shown(key)}: a routing key has at most {LONGEST} bytes."
        raise ValueError(message)
    return key


@lru_cache(1024)
def is_private(reply_to: bytes) -> bool:
    """Whether a queue that is to get an answer can only be a client's own.

    The token of direct reply-to must have its form, ``process.key`` in base64: for
    another one the broker closes the connection that answers.
    Source: ``rabbit_direct_reply_to.erl`` (3.10 to 4.1), ``rabbit_volatile_queue.erl``.
    """
    if not reply_to.startswith(_DIRECT):
        return reply_to.startswith(_GENERATED)
    process, _, key = reply_to.removeprefix(_DIRECT).partition(b".")
    try:
        base64.b64decode(key, validate=True)
        return bool(key) and _is_process(base64.b64decode(process, validate=True))
    except ValueError:
        return False


def _is_process(data: bytes) -> bool:
    """Whether bytes are an Erlang process: a mark, its node's name, its numbers.

    Source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.
    """
    if len(data) < _LEAST or data[0] != _EXTERNAL:
        return False
    numbers, size = _PROCESSES.get(data[1]), _ATOMS.get(data[2])
    if numbers is None or size is None:
        return False
    name = int.from_bytes(data[_LEAST : _LEAST + size], "big")
    return name > 0 and len(data) == _LEAST + size + name + numbers


def beside(queue: str, end: str, start: str = "") -> str:
    """Name what stands beside a queue or an exchange: its name with more around it.

    One that would be too long is cut, and a digest tells it apart.
    """
    name = f"{start}{queue}{end}"
    if len(name.encode()) <= LONGEST:
        return name
    digest = blake2b(queue.encode(), digest_size=_DIGEST_SIZE).hexdigest()
    room = LONGEST - len(f"{start}.{digest}{end}".encode())
    return f"{start}{queue.encode()[:room].decode(errors='ignore')}.{digest}{end}"
