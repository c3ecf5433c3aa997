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
from .answers import OVERLOADED, Answers, nobody
from .protocol import Packet, first_values, read_headers
from .subjects import Interest, is_wide

if TYPE_CHECKING:
    from ..base import Deliver, Respond
    from .connection import Connection

logger = logging.getLogger(__name__)

MOST_WAITING = 32 * 1024 * 1024
"""Bytes that wait at most, ``EACH`` for each message included: as much as Redis keeps
for a subscriber. It is memory that counts, and NATS would keep nothing for longer: it
closes a connection on which a write of its took 10 s, and loses all that is behind."""
EACH = 500
"""Bytes that a message takes beside its own: about those of a small event."""

GLANCE = 1.0
"""Seconds without room until the socket is read on: it also tells of the end of
streams, which makes room, and of the server's. What comes beyond is refused."""

TELLS = 1.0
"""Seconds between two lines in the log about what is refused."""


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
            high_water=MOST_WAITING,
        )
        self._glance: asyncio.TimerHandle
        self._refuses = False
        self._refused = 0
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
        """Leave messages with NATS; but do not be deaf for long."""
        connection = self.connection
        connection.pause_reading()
        self._glance = connection.loop.call_later(GLANCE, self._read_without_room)

    def _read_without_room(self) -> None:
        """See what else has come; of messages only so many are kept from now on."""
        self._refuses = True
        self.connection.resume_reading()

    def _resume_reading(self) -> None:
        """Read on, as there is room again."""
        self._glance.cancel()
        self._refuses = False
        self.connection.resume_reading()

    def _lost(self, _: Any) -> None:
        self.room.drop_requests()
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
        """Deliver, have it wait, or refuse it: at most once is all that NATS says."""
        room = self.room
        if self._refuses and room.weight >= room.high_water:
            self._count_refused()
            answer(Reply(message.id, None, OVERLOADED))
        else:
            weight = EACH + len(packet.body) + len(packet.headers)
            room.take(message, answer, None, weight)

    def _count_refused(self) -> None:
        """Count what there is no room for; a flood of it must not flood the log."""
        self.dropped += 1
        self._refused += 1
        if self._refused == 1:
            self.connection.loop.call_later(TELLS, self._tell_refused)

    def _tell_refused(self) -> None:
        count, self._refused = self._refused, 0
        logger.warning("Refused %d messages: too many wait already.", count)

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
