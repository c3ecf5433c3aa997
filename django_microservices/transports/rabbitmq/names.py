"""Names that callers and peers give, before they become routing keys."""

from ...wire.patterns import Pattern
from ...wire.text import shown
from .frames import LONGEST

_WILDCARDS = frozenset("*#")
_FIRST_PRINTABLE, _DELETE = " ", "\x7f"
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""A queue that is none: whoever consumes it gets what answers its own messages."""
_PRIVATE = (b"amq.rabbitmq.reply-to.", b"amq.gen-")
"""How the names of queues begin that belong to one client alone."""


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


def is_private(reply_to: bytes) -> bool:
    """Whether a queue that is to get an answer can only be a client's own."""
    return reply_to.startswith(_PRIVATE)
