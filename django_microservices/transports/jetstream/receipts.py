"""What JetStream is told of each message, and where the dead ones lie."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ...exceptions import MessageTooLarge, MicroserviceError
from ...wire.codecs import encode
from ...wire.text import shown
from ..nats.protocol import (
    MESSAGE_ID,
    Packet,
    is_header,
    is_unheard,
    read_headers,
    write_headers,
)
from ..nats.subjects import LONGEST
from ..redelivery import (
    GIVEN_BACK,
    GROUP_HEADER,
    SEQUENCE_HEADER,
    STREAM_HEADER,
    SUBJECT_HEADER,
    Receipt,
    Redelivery,
    headers_of_letter,
)
from .api import JetStreamError, answer_in, nanoseconds
from .names import Delivered, name_of

if TYPE_CHECKING:
    from ..nats.connection import Connection
    from ..nats.inbox import Inbox

logger = logging.getLogger(__name__)

ACK, NAK, TERM, IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"

LINGER = 1.0
PATIENCE = 5.0
"""Seconds in which JetStream must say that it has a dead letter."""
AGAIN = 5.0
"""Seconds until a dead letter that could not be buried is tried again."""


class Ledger:
    """The messages of one server of which JetStream was told nothing yet.

    While a handler runs long, JetStream hears every third of ``ack_wait`` that it does.
    Dead letters go to ``<graves>.<group>.<pattern>``, which a stream takes that
    ``make_graves`` makes; in place of a pattern that NATS might not take there stands
    its hash.
    """

    def __init__(
        self,
        connection: "Connection",
        inbox: "Inbox",
        redelivery: Redelivery,
        *,
        ack_wait: float,
        graves: str,
        make_graves: Callable[[], Awaitable[None]],
        group: str,
    ) -> None:
        self.connection = connection
        self.redelivery = redelivery
        self.leaving = False
        self.open: set[JetStreamReceipt] = set()
        self._inbox = inbox
        self._grave = f"{graves}.{name_of(group)}.".encode()
        self._make_graves = make_graves
        self._group = group
        self._pause = ack_wait / 3
        self._burials: set[asyncio.Task[None]] = set()
        self._timer = connection.loop.call_later(self._pause, self._report)

    def _report(self) -> None:
        """Tell JetStream that we are at it."""
        for receipt in self.open:
            receipt.say(IN_PROGRESS)
        self._timer = self.connection.loop.call_later(self._pause, self._report)

    def bury(self, receipt: "JetStreamReceipt", reason: str) -> None:
        """Keep a dead letter, then have the message delivered no more."""
        task = self.connection.loop.create_task(self._bury(receipt, reason))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _bury(self, receipt: "JetStreamReceipt", reason: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._keep(receipt, shown(reason))
        except (MicroserviceError, TimeoutError) as error:
            why = shown(str(error)) or "JetStream does not answer."
            logger.warning("A dead letter could not be kept: %s", why)
            receipt.say(NAK + b" " + encode({"delay": nanoseconds(AGAIN)}))
        else:
            receipt.say(TERM)
        self.open.discard(receipt)

    async def _keep(self, receipt: "JetStreamReceipt", reason: str) -> None:
        """Store a dead letter; of one that is refused, or too large, the epitaph."""
        packet, own = receipt.packet, self._own_headers(receipt)
        count = receipt.told.deliveries
        headers = headers_of_letter(_user_headers(packet), reason, count) | own
        epitaph = headers_of_letter(None, reason, count) | own
        subject = self._grave + _plot(packet.subject)
        try:
            await self._store(subject, packet.body, write_headers(headers))
        except (JetStreamError, MessageTooLarge):  # it is in its stream still
            await self._store(subject, b"", write_headers(epitaph))

    async def _store(self, subject: bytes, body: bytes, block: bytes) -> None:
        answer = await self._inbox.ask(subject, body, block)
        if is_unheard(answer.headers):  # no stream takes it: ours was deleted
            await self._make_graves()
            answer = await self._inbox.ask(subject, body, block)
        answer_in(answer)

    def _own_headers(self, receipt: "JetStreamReceipt") -> dict[str, str]:
        told, subject = receipt.told, receipt.packet.subject
        long = {SUBJECT_HEADER: subject.decode(errors="replace")}
        # A stream that is made anew counts from 1 again.
        which = f"{told.stream}.{told.consumer}.{told.sequence}.{told.nanoseconds}"
        return {
            **(long if len(subject) > LONGEST else {}),
            GROUP_HEADER: self._group,
            STREAM_HEADER: told.stream,
            SEQUENCE_HEADER: str(told.sequence),
            MESSAGE_ID: which,
        }

    async def close(self) -> None:
        """Give back what is not done."""
        self._timer.cancel()
        self.leaving = True
        if self._burials:
            await asyncio.wait(self._burials, timeout=LINGER)
        for receipt in tuple(self.open):
            receipt.settle("retry")


def _plot(subject: bytes) -> bytes:
    """Return what stands for a subject in that of its dead letters."""
    if len(subject) <= LONGEST:
        return subject
    return hashlib.sha256(subject).hexdigest().encode()


def _user_headers(packet: Packet) -> dict[str, str]:
    """Return the headers of a message that tell NATS nothing, and may be sent on."""
    return {
        name: value
        for name, value in read_headers(packet.headers)
        if is_header(name, value) and not name.lower().startswith("nats-")
    }


class JetStreamReceipt(Receipt):
    """What becomes of one message."""

    __slots__ = ("ledger", "packet", "told")

    def __init__(self, ledger: Ledger, packet: Packet, told: Delivered) -> None:
        super().__init__()
        self.ledger = ledger
        self.packet = packet
        self.told = told
        ledger.open.add(self)

    def say(self, words: bytes) -> None:
        """Answer the message."""
        self.ledger.connection.publish(self.packet.reply, words)

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, give back, or bury."""
        ledger = self.ledger
        if outcome == "ack":
            self.say(ACK)
        elif outcome == "retry" and (ledger.leaving or reason == GIVEN_BACK):
            self.say(NAK)
        else:
            rest = None
            if outcome == "retry":
                rest = ledger.redelivery.after(self.told.deliveries)
            if rest is None:
                ledger.bury(self, reason)
                return
            rest = rest if delay is None else delay
            self.say(NAK + b" " + encode({"delay": nanoseconds(rest)}))
        ledger.open.discard(self)
