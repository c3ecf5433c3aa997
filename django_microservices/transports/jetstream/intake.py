"""The server's half: requests as on NATS, events from durable consumers."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ...wire.messages import UNSET, Message
from ..nats.answers import nobody
from ..nats.intake import Intake, read_message
from ..nats.protocol import Packet, read_headers
from ..redelivery import is_given_back
from .consumer import HEARTBEAT, Consumer
from .names import Delivered
from .receipts import JetStreamReceipt, Ledger

if TYPE_CHECKING:
    from ..base import Deliver
    from ..nats.connection import Connection


class JetStreamWire(msgspec.Struct, frozen=True, gc=False):
    """What only JetStream knows of a message: ``context.wire``.

    ``sequence`` is the message's number in the ``stream``, ``deliveries`` how often it
    was delivered, this time included, ``nanoseconds`` the time when it was stored,
    ``pending`` how many wait behind it.
    """

    subject: str
    stream: str
    consumer: str
    deliveries: int
    sequence: int
    nanoseconds: int
    pending: int
    packet: Packet

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All headers in order; a name may stand there several times."""
        return read_headers(self.packet.headers)


class JetStreamIntake(Intake):
    """Requests come as on NATS; of events JetStream is told what became of them."""

    def __init__(
        self,
        connection: "Connection",
        deliver: "Deliver",
        ledger: Ledger,
        *,
        limit: int,
        inbox_prefixes: Iterable[str],
        subject_prefix: str,
    ) -> None:
        super().__init__(
            connection, deliver, limit=limit, inbox_prefixes=inbox_prefixes
        )
        self.ledger = ledger
        self.consumers: list[Consumer] = []
        self._prefix = subject_prefix.encode()
        if subject_prefix:
            self.private = (*self.private, self._prefix)
        self._watch = connection.loop.call_later(HEARTBEAT, self._look)

    def consume(self, consumer: Consumer) -> None:
        """Begin to consume."""
        self.consumers.append(consumer)
        consumer.start()

    def _look(self) -> None:
        """See that all consumers live."""
        now = self.connection.loop.time()
        for consumer in self.consumers:
            consumer.check(now)
        self._watch = self.connection.loop.call_later(HEARTBEAT, self._look)

    def take(self, consumer: Consumer, packet: Packet, told: Delivered) -> None:
        """Deliver an event, when there is room."""
        packet.subject = packet.subject.removeprefix(self._prefix)
        receipt = JetStreamReceipt(self.ledger, packet, told)
        if told.deliveries > self.ledger.redelivery.max_deliveries:
            self._refuse(consumer, receipt, "delivered too often, with no outcome")
            return
        found = read_message(packet, consumer.subscription)
        if not isinstance(found, Message):
            self.drop(packet, "a text that is no message")
            self._refuse(consumer, receipt, "unreadable")
            return
        found.id = UNSET  # what the stream has is an event, even if it names an id
        found.wire = JetStreamWire(found.pattern.route, *told, packet)
        found.settle = receipt.settle
        self.room.take(found, nobody, partial(_finished, consumer, receipt))

    def _refuse(
        self, consumer: Consumer, receipt: JetStreamReceipt, reason: str
    ) -> None:
        receipt.settle("dead", None, reason)
        consumer.done()

    async def pause(self) -> None:
        """Ask for nothing more; return when what came until then is done."""
        for consumer in self.consumers:
            consumer.stop()
        await super().pause()

    async def close(self) -> None:
        """Give back what is not done."""
        self._watch.cancel()
        for consumer in self.consumers:
            consumer.stop()
        await self.ledger.close()


def _finished(consumer: Consumer, receipt: JetStreamReceipt, delivery: Any) -> None:
    """Settle; a server that stops asks for nothing more, or gets back what it gives."""
    if consumer.batch and is_given_back(delivery):
        consumer.stop()
    receipt.finished(delivery)
    consumer.done()
