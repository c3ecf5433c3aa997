"""What a message becomes that is published once more: a new try, or a dead letter."""

from typing import NamedTuple

from ...wire.messages import new_id
from ...wire.text import shown
from .fields import (
    CLUSTER_ID,
    USER_ID,
    number_of,
    number_value,
    read_entries,
    read_fields,
    text_of,
    text_value,
    write_entries,
    write_fields,
)
from .frames import short
from .properties import (
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    PERSISTENT,
)
from .protocol import Content

ATTEMPTS, REASON = b"x-dm-attempts", b"x-dm-reason"
EXCHANGE, ROUTING_KEY = b"x-dm-exchange", b"x-dm-routing-key"
_COUNTS = (ATTEMPTS, b"x-delivery-count")
"""Ours, and a quorum queue's own: deliveries before this one."""
_MOST_DELIVERIES = 2**31 - 1
_COPIES = (b"CC", b"BCC")  # would be made again
_DEATHS = (
    b"x-death",
    b"x-first-death-exchange",
    b"x-first-death-queue",
    b"x-first-death-reason",
)
_NOT_OURS = (EXPIRATION, USER_ID, CLUSTER_ID)
"""Properties that a copy must not have: it rests longer, and is published by us."""
_MODE = bytes((PERSISTENT,))


class Copy(NamedTuple):
    """A message to publish: ``name`` is its ``message_id``."""

    name: str
    properties: bytes
    body: bytes


def name_of(raw: bytes) -> str | None:
    """Return the ``message_id`` among properties."""
    packed = read_fields(raw).get(MESSAGE_ID)
    return None if packed is None else packed[1:].decode(errors="replace")


def deliveries_of(content: Content) -> int:
    """Return how often a message was delivered so far, this time included."""
    headers = _headers_of(content)
    counts = (number_of(headers[name]) for name in _COUNTS if name in headers)
    return min(_MOST_DELIVERIES, 1 + sum(n for n in counts if n > 0))


def came_by(content: Content) -> tuple[str, str]:
    """Return the exchange and routing key of the message's first delivery."""
    exchange, routing_key = content.came_by
    if not exchange:
        headers = _headers_of(content)
        if ROUTING_KEY in headers:
            first = headers.get(EXCHANGE, b"")
            return text_of(first), text_of(headers[ROUTING_KEY])
    return exchange, routing_key


def _headers_of(content: Content) -> dict[bytes, bytes]:
    """Return the headers of a message; none, where they cannot be read."""
    try:
        return read_entries(read_fields(content.properties).get(HEADERS, b""))
    except ValueError:
        return {}


def copy_to_retry(content: Content, deliveries: int, room: int) -> Copy:
    """Make the message anew for another try; ``room`` is in bytes of properties.

    Its history of dead letters is left out: the broker would take the way through the
    queue of delays for a circle, and drop the message.
    """
    return _copy(content, deliveries, room, (*_COPIES, *_DEATHS), {})


def dead_letter(content: Content, deliveries: int, room: int, reason: str) -> Copy:
    """Make the message anew with the reason of its end."""
    why = {REASON: text_value(shown(reason))}
    return _copy(content, deliveries, room, _COPIES, why)


def _copy(
    content: Content,
    deliveries: int,
    room: int,
    without: tuple[bytes, ...],
    more: dict[bytes, bytes],
) -> Copy:
    """Keep all that is not ours to say, byte for byte, unless there is no room."""
    try:
        fields = read_fields(content.properties)
    except ValueError:  # what cannot be read is not kept: the body is
        fields = {}
    for flag in _NOT_OURS:
        fields.pop(flag, None)
    headers = _headers_of(content)
    kept = {name: headers[name] for name in headers if name not in without}
    exchange, routing_key = came_by(content)
    ours = {
        ATTEMPTS: number_value(deliveries),
        EXCHANGE: text_value(exchange),
        ROUTING_KEY: text_value(routing_key),
        **more,
    }
    if fields.get(MESSAGE_ID, b"\0") == b"\0":
        fields[MESSAGE_ID] = short(new_id())
    fields[DELIVERY_MODE] = _MODE
    fields[HEADERS] = write_entries(kept | ours)
    packed = write_fields(fields)
    if len(packed) > room:  # they must fit into one frame
        needed = {flag: fields[flag] for flag in (DELIVERY_MODE, MESSAGE_ID)}
        packed = write_fields(needed | {HEADERS: write_entries(ours)})
    name = fields[MESSAGE_ID][1:].decode(errors="replace")
    return Copy(name, packed, content.head if content.body is None else content.body)
