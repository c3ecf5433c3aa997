"""What a message becomes that is published once more: a new try, or a dead letter."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pamqp import commands

from ...wire.messages import new_id
from ...wire.packets import texts_of
from ...wire.text import shown
from .properties import PERSISTENT, read_properties, write_properties
from .protocol import Content

ATTEMPTS, REASON = "x-dm-attempts", "x-dm-reason"
EXCHANGE, ROUTING_KEY = "x-dm-exchange", "x-dm-routing-key"
_BROKERS_COUNT = "x-delivery-count"  # of a quorum queue: deliveries before this one
_MOST = 64 * 1024  # bytes of properties, of a frame's 128
_COPIES = ("CC", "BCC")  # would be made again
_DEATHS = ("x-death", "x-first-death-exchange", "x-first-death-queue")
_DEATH_REASON = "x-first-death-reason"


class Copy(NamedTuple):
    """A message to publish: ``name`` is its ``message_id``."""

    name: str
    properties: bytes
    body: bytes


def deliveries_of(content: Content) -> int:
    """Return how often a message was delivered so far, this time included."""
    headers = _headers_of(content)
    counts = (headers.get(name) for name in (ATTEMPTS, _BROKERS_COUNT))
    return 1 + sum(n for n in counts if isinstance(n, int) and n > 0)


def came_by(content: Content) -> tuple[str, str]:
    """Return the exchange and routing key of the message's first delivery."""
    exchange, routing_key = content.came_by
    headers = _headers_of(content)
    if not exchange and ROUTING_KEY in headers:
        return str(headers.get(EXCHANGE, "")), str(headers[ROUTING_KEY])
    return exchange, routing_key


def _headers_of(content: Content) -> Mapping[str, Any]:
    """Return the headers of a message; none, where they cannot be read."""
    try:
        return read_properties(content.properties).headers or {}
    except ValueError:
        return {}


def copy_to_retry(content: Content, deliveries: int) -> Copy:
    """Make the message anew for another try.

    Its history of dead letters is left out: the broker would take the way through the
    queue of delays for a circle, and drop the message.
    """
    return _copy(content, deliveries, (*_COPIES, *_DEATHS, _DEATH_REASON), {})


def dead_letter(content: Content, deliveries: int, reason: str) -> Copy:
    """Make the message anew with the reason of its end."""
    return _copy(content, deliveries, _COPIES, {REASON: shown(reason)})


def _copy(
    content: Content, deliveries: int, without: tuple[str, ...], more: dict[str, Any]
) -> Copy:
    try:
        properties = read_properties(content.properties)
    except ValueError:  # what cannot be read is not kept: the body is
        properties = commands.Basic.Properties()
    exchange, routing_key = came_by(content)
    headers: Any = properties.headers or {}
    kept = {name: headers[name] for name in headers if name not in without}
    ours = {ATTEMPTS: deliveries, EXCHANGE: exchange, ROUTING_KEY: routing_key, **more}
    properties.headers = kept | ours
    properties.delivery_mode = PERSISTENT
    properties.expiration = None
    properties.user_id = None  # must be the publisher's own
    properties.cluster_id = ""
    name = properties.message_id = properties.message_id or new_id()
    try:
        packed = write_properties(properties)
    except TypeError:  # pamqp writes less than it reads: texts that are no UTF-8
        properties.headers = {**texts_of(kept), **ours}
        packed = write_properties(properties)
    if len(packed) > _MOST:  # they must fit into one frame
        packed = write_properties(
            commands.Basic.Properties(
                headers=ours, delivery_mode=PERSISTENT, message_id=name
            )
        )
    return Copy(name, packed, content.body or b"")
