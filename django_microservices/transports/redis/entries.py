"""Entries of streams without I/O: what is written into them, and read from them.

An entry has the fields ``data`` (JSON), ``headers`` (JSON, texts), and of a request
``id`` (JSON) and ``reply``, the channel where the answer is awaited. One that has none
of them is a stranger's event: all that it has is its data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...exceptions import InvalidMessage
from ...wire.codecs import decode, encode
from ...wire.headers import headers_of, remaining
from ...wire.messages import UNSET, Message
from ...wire.packets import texts_of
from ...wire.patterns import Pattern
from ...wire.unreadable import is_answerable
from .protocol import check_depth, check_size, command

DATA, HEADERS, ID, REPLY = b"data", b"headers", b"id", b"reply"
_OURS = frozenset((DATA, HEADERS, ID))


class RedisStreamsWire(msgspec.Struct, frozen=True):
    """What only a stream knows of a message: ``context.wire``."""

    stream: str
    entry_id: str
    deliveries: int
    """How often it was delivered, this time included."""


def write_fields(message: Message, reply: bytes, most: int) -> list[bytes]:
    """Return what a message's entry has: names and values in turn.

    Raises :class:`InvalidMessage` or :class:`MessageTooLarge` for what is refused.
    """
    fields = []
    if message.data is not UNSET:
        check_depth(message.data)
        fields += [DATA, message.data]
    headers = headers_of(message)
    if headers is not None or not fields:  # Redis keeps no entry that is empty
        fields += [HEADERS, encode(headers or {})]
    if not message.is_event:
        fields += [ID, encode(message.id), REPLY, reply]
    check_size(sum(map(len, fields)), most)
    return fields


def read_fields(
    pattern: Pattern, fields: Sequence[bytes], most: int
) -> tuple[Message, bytes | None]:
    """Return the message of an entry, and where its answer is awaited.

    Raises :class:`InvalidMessage` or :class:`MessageTooLarge` for what is refused.
    """
    check_size(sum(map(len, fields)), most)
    members = dict(zip(fields[::2], fields[1::2], strict=True))
    if _OURS.isdisjoint(members):
        message = Message(pattern, encode(_texts(members)))
    else:
        id_ = _read_id(members[ID]) if ID in members else UNSET
        message = Message(pattern, members.get(DATA, UNSET), id_)
        if HEADERS in members:
            _read_headers(message, members[HEADERS])
    if message.data is not UNSET:
        check_depth(message.data)
    return message, members.get(REPLY)


def _texts(members: dict[bytes, bytes]) -> dict[str, str]:
    return {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in members.items()
    }


def _read_id(text: bytes) -> Any:
    value = decode(text)
    if not is_answerable(value):
        reason = "The id is none that an answer can have."
        raise InvalidMessage(reason)
    return value


def _read_headers(message: Message, text: bytes) -> None:
    value: Any = decode(text)
    if not isinstance(value, dict):
        reason = "The headers are no object."
        raise InvalidMessage(reason)
    message.headers = texts_of(value)
    message.timeout = remaining(message.headers)


def milliseconds_of(id_: bytes) -> int:
    """Return when Redis took an entry, on its own clock."""
    return int(id_.partition(b"-")[0])


def bury(
    stream: bytes, dead: bytes, group: str, id_: bytes, fields: Iterable[bytes | str]
) -> bytes:
    """Write the command that moves a pending entry to the dead letters."""
    return command("EVAL", _BURY, 2, stream, dead, group, id_, *fields)


def forget_consumers(stream: bytes, group: str, gone: str, seconds: float) -> bytes:
    """Write the command that removes ``gone``, and all that did nothing for so long.

    Those that have entries pending stay until these were claimed.
    """
    idle = int(seconds * 1000)
    return command("EVAL", _FORGET_CONSUMERS, 1, stream, group, gone, idle)


# Written before it is acknowledged, and only while it is pending: an error leaves it as
# it was, and of two that bury the same entry one comes too late.
_BURY = """\
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
"""

_FORGET_CONSUMERS = """\
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #facts, 2 do consumer[facts[i]] = facts[i + 1] end
  local gone = consumer.name == ARGV[2] or consumer.idle > tonumber(ARGV[3])
  if gone and consumer.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
"""
