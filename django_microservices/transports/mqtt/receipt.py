"""What becomes of a message of QoS 1 or 2: acknowledged, tried again, or buried.

MQTT cannot give a message back, so it rests here and is tried again, unacknowledged: if
the process dies meanwhile, a broker that keeps the session delivers it anew. (PUBACKs
leave in the order in which handlers end, and not, as section 4.6 has it, in that of the
messages: one slow handler would hold up all others.)
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ...exceptions import MessageTooLarge
from ...wire.messages import UNSET, Message
from ...wire.text import shown
from ..redelivery import LONGEST_DELAY, Redelivery
from ..redelivery import Receipt as BaseReceipt
from .packer import Packer
from .properties import problem_of, text_bytes

if TYPE_CHECKING:
    from ..base import Respond
    from .connection import Connection
    from .packets import Oversized, Publish

logger = logging.getLogger(__name__)

REASON_HEADER = "dm-reason"
"""On a dead letter: why it is one."""
DELIVERIES_HEADER = "dm-deliveries"

AT_LEAST_ONCE = 0x02
"""QoS 1, as it stands in a message's first byte."""

_STOPPED = "the server stopped"
_LONGEST_REASON = 1024
_CONFIRM = 5.0
"""Seconds for the broker to confirm the last dead letters."""


class Receipt(BaseReceipt):
    """One delivery of one message."""

    __slots__ = (
        "connection",
        "deliveries",
        "failures",
        "message",
        "publish",
        "respond",
    )

    def __init__(
        self,
        failures: "Failures",
        connection: "Connection",
        publish: "Publish | Oversized",
        message: Message,
        respond: "Respond",
        *,
        deliveries: int = 1,
    ) -> None:
        super().__init__()
        self.failures = failures
        self.connection = connection
        self.publish = publish
        self.message = message
        self.respond = respond
        self.deliveries = deliveries
        message.settle = self.settle

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, rest, or bury; a broker that is gone needs to know nothing."""
        if self.connection.lost:
            return
        if outcome == "ack":
            self.acknowledge()
        elif outcome == "dead":
            self.failures.bury(self, reason)
        else:
            self.failures.retry(self, delay, reason)

    def acknowledge(self) -> None:
        """Tell the broker that it may forget the message."""
        self.connection.accepted.acknowledge(self.publish.qos, self.publish.packet_id)

    def again(self) -> "Receipt":
        """Return the receipt of the next delivery."""
        message = msgspec.structs.replace(self.message)
        return Receipt(
            self.failures,
            self.connection,
            self.publish,
            message,
            self.respond,
            deliveries=self.deliveries + 1,
        )


class Failures:
    """The messages that rest, and those that are being buried.

    ``take(receipt)`` delivers once more. ``topic`` is the dead letters': each is
    published below it. ``forgets`` says that the broker keeps nothing of the session,
    so that what is not handled at the end must be buried.
    """

    def __init__(
        self,
        redelivery: Redelivery,
        packer: Packer,
        topic: str,
        take: Callable[[Receipt], None],
        *,
        forgets: bool,
    ) -> None:
        self._redelivery = redelivery
        self._packer = packer
        self._topic = topic
        self._take = take
        self._forgets = forgets
        self._is_leaving = False
        self._resting: dict[Receipt, tuple[asyncio.TimerHandle, str]] = {}
        self._burying: set[asyncio.Future[int]] = set()

    # --- resting ---

    def retry(self, receipt: Receipt, delay: float | None, reason: str) -> None:
        """Deliver again after a while; too often is a dead letter."""
        rest = self._redelivery.after(receipt.deliveries)
        if self._is_leaving:
            self._leave(receipt, reason)
        elif rest is None:
            self.bury(receipt, reason)
        else:
            seconds = rest if delay is None else delay
            self._rest(receipt, seconds, self._again, reason)

    def _rest(
        self,
        receipt: Receipt,
        seconds: float,
        then: Callable[[Receipt, str], None],
        reason: str,
    ) -> None:
        """Call ``then`` after a while, unless the connection is lost."""
        if not receipt.connection.lost:
            loop = receipt.connection.loop
            timer = loop.call_later(seconds, self._rested, receipt, then, reason)
            self._resting[receipt] = (timer, reason)

    def _rested(
        self, receipt: Receipt, then: Callable[[Receipt, str], None], reason: str
    ) -> None:
        del self._resting[receipt]
        if not receipt.connection.lost:
            then(receipt, reason)

    def _again(self, receipt: Receipt, _: str) -> None:
        self._take(receipt.again())

    # --- dead letters ---

    def bury(self, receipt: Receipt, reason: str) -> None:
        """Publish a dead letter, and acknowledge the message when that is confirmed."""
        topic = shown(receipt.publish.topic)
        reason = reason[:_LONGEST_REASON]
        if problem_of(reason) is not None:  # a handler's own may hold anything
            reason = shown(reason)
        if REASON_HEADER in (receipt.message.headers or ()):
            logger.error("A dead letter failed again: %s: %s.", topic, reason)
            receipt.acknowledge()
            return
        logger.error("A dead letter from %s: %s.", topic, reason)
        self._publish(receipt, reason)

    def _publish(self, receipt: Receipt, reason: str) -> None:
        message = receipt.message
        try:
            future = self._published(receipt, reason)
        except (MessageTooLarge, ValueError) as error:
            if message.data is UNSET and message.headers is None:
                logger.error("It cannot be published: %s", error)  # noqa: TRY400 - known
                receipt.acknowledge()
                return
            message.data, message.headers = UNSET, None
            self._publish(receipt, reason)
            return
        self._burying.add(future)

        def confirmed(_: "asyncio.Future[int]") -> None:
            self._burying.discard(future)
            error = future.exception()
            if error is None:
                receipt.acknowledge()
            else:
                logger.error("The dead letter was not taken: %s.", error)
                self._rest(receipt, LONGEST_DELAY, self._publish, reason)

        future.add_done_callback(confirmed)

    def _published(self, receipt: Receipt, reason: str) -> "asyncio.Future[int]":
        headers = {
            **(receipt.message.headers or {}),
            REASON_HEADER: reason,
            DELIVERIES_HEADER: str(receipt.deliveries),
        }
        letter = msgspec.structs.replace(receipt.message, id=UNSET, headers=headers)
        topic = f"{self._topic}/{receipt.publish.topic}"
        if problem_of(topic) is not None:  # with the prefix it is too long
            topic = self._topic
        properties, body = self._packer.pack(letter)
        return receipt.connection.publish(
            AT_LEAST_ONCE, text_bytes(topic), properties, body
        )

    # --- the end ---

    def leave(self) -> None:
        """Let nothing rest any more."""
        self._is_leaving = True
        resting, self._resting = self._resting, {}
        for receipt, (timer, reason) in resting.items():
            timer.cancel()
            self._leave(receipt, reason)

    async def buried(self) -> None:
        """Return when every dead letter is confirmed, or a moment has passed."""
        if self._burying:
            await asyncio.wait(self._burying, timeout=_CONFIRM)

    def _leave(self, receipt: Receipt, reason: str) -> None:
        """Leave a message to the broker, or bury what it would forget."""
        if self._forgets and not receipt.connection.lost:
            self.bury(receipt, f"{_STOPPED} ({reason})" if reason else _STOPPED)
