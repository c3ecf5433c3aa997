"""The server's half of the NATS wire."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ...exceptions import ConnectionLost
from ...wire.channels import read_channel_message
from ...wire.headers import remaining
from ...wire.messages import UNSET, Message, Reply, Subscription
from ...wire.patterns import RESERVED_PREFIX
from ...wire.text import shown
from ..room import Room
from .answers import Answers, nobody
from .protocol import Packet, first_values, read_headers
from .subjects import Interest, is_wide

if TYPE_CHECKING:
    from ..base import Deliver, Respond
    from .connection import Connection

logger = logging.getLogger(__name__)

GLANCE = 1.0
"""Seconds without room until the socket is read on: it also tells of the end of
streams, which makes room, and of the server's."""

MOST_WAITING = 16
"""So many times as may be in flight wait when we read without room; what comes beyond
is dropped."""


class NATSWire(msgspec.Struct, frozen=True, gc=False):
    """What only NATS knows of a message: ``context.wire``."""

    packet: Packet

    @property
    def subject(self) -> str:
        """The concrete subject."""
        return self.packet.subject.decode(errors="replace")

    @property
    def reply(self) -> str:
        """Where the answer goes; empty in an event."""
        return self.packet.reply.decode(errors="replace")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All headers in order; a name may stand there several times."""
        return read_headers(self.packet.headers)


class Intake:
    """Subscribes, bounds what is in flight, and ends in good order.

    Subjects that begin with one of ``private`` are not for patterns that begin with a
    wildcard: they are NATS' own, ours, and answers to somebody.
    """

    def __init__(
        self,
        connection: "Connection",
        deliver: "Deliver",
        *,
        limit: int,
        inbox_prefixes: Iterable[str],
    ) -> None:
        self.connection = connection
        self.dropped = 0
        self.answers = Answers(connection, deliver, inbox_prefixes)
        self.private = (b"$", RESERVED_PREFIX.encode(), *self.answers.prefixes)
        self.room = Room(
            limit,
            self.answers.deliver,
            self._pause_reading,
            self._resume_reading,
        )
        self._glance: asyncio.TimerHandle
        self._glances = False
        self.closed: asyncio.Future[BaseException | None] = (
            connection.loop.create_future()
        )
        self._sids: list[bytes] = []
        connection.closed.add_done_callback(self._lost)

    @property
    def driver(self) -> "Connection":
        """The connection."""
        return self.connection

    @property
    def address(self) -> str:
        """The server's."""
        return f"nats://{self.connection.address}"

    def _pause_reading(self) -> None:
        """Leave messages with NATS; but never be deaf for long."""
        connection = self.connection
        connection.pause_reading()
        self._glance = connection.loop.call_later(GLANCE, self._read_without_room)

    def _read_without_room(self) -> None:
        """See what else has come; of messages only so many are kept from now on."""
        self._glances = True
        self.connection.resume_reading()

    def _resume_reading(self) -> None:
        """Read on, as there is room again."""
        self._glance.cancel()
        self._glances = False
        self.connection.resume_reading()

    def _lost(self, _: Any) -> None:
        self.lose(self.connection.reason or "")

    def lose(self, reason: str) -> None:
        """End, unless it has ended: the server begins again."""
        if not self.closed.done():
            self.closed.set_result(ConnectionLost(reason))

    async def listen(self, interests: Sequence[Interest]) -> None:
        """Subscribe; return when messages come.

        Raises :class:`TransportRefused` where the user may not.
        """
        connection = self.connection
        for subscription, subject, queue, overlaps in interests:
            via = subscription if overlaps else None
            take = self._take_if_meant if is_wide(subject) else self._take
            received = partial(take, via)
            self._sids.append(connection.subscribe(subject, received, queue))
        await connection.settled()

    def _take_if_meant(self, via: Subscription | None, packet: Packet) -> None:
        """Deliver what is meant for everybody."""
        if not packet.subject.startswith(self.private):
            self._take(via, packet)

    def _take(self, via: Subscription | None, packet: Packet) -> None:
        """Deliver one copy of a message, when there is room."""
        found = read_message(packet, via)
        if isinstance(found, Message):
            answer = nobody if found.id is UNSET else self.answers.to(packet)
            self._make_room(found, answer, packet)
        elif found is not None:
            self.answers.to(packet)(found)
        else:
            self.drop(packet, "a text that is no message")

    def _make_room(self, message: Message, answer: "Respond", packet: Packet) -> None:
        """Deliver, have it wait, or drop it: at most once is all that NATS says."""
        room = self.room
        if self._glances and len(room.waiting) >= MOST_WAITING * room.limit:
            self.drop(packet, "what there is no room for")
        else:
            room.take(message, answer)
        if room.is_paused and not self.connection.deaf:
            self._pause_reading()

    def drop(self, packet: Packet, what: str) -> None:
        """Count what cannot be handled and cannot be answered."""
        self.dropped += 1
        subject = shown(packet.subject.decode(errors="replace"))
        logger.warning("Dropped %s on %s.", what, subject)

    async def pause(self) -> None:
        """Unsubscribe; return when what came until then is answered."""
        connection = self.connection
        for sid in self._sids:
            connection.unsubscribe(sid)
        await connection.ping()
        await self.room.empty()
        await connection.ping()


def read_message(
    packet: Packet, subscription: Subscription | None
) -> Message | Reply | None:
    """Return the Message that arrived, the Reply that refuses it, or ``None``.

    What stands in the headers counts more than ``metadata`` in the body.
    """
    found = read_channel_message(packet.subject.decode(errors="replace"), packet.body)
    if isinstance(found, Message):
        found.subscription = subscription
        found.wire = NATSWire(packet)
        if packet.headers:
            headers = first_values(packet.headers)
            found.headers = headers if not found.headers else found.headers | headers
            found.timeout = remaining(headers)
    return found
