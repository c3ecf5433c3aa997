"""What becomes of messages that failed: tried again, or published as dead letters.

MQTT cannot give a message back, so it rests here. In a session that the broker keeps it
does so unacknowledged: if the process dies meanwhile, the broker delivers it anew. None
of it ends with a connection.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ...exceptions import MessageTooLarge, TransportRefused
from ...wire.messages import UNSET
from ...wire.text import shown
from ..redelivery import (
    GIVEN_BACK,
    LONGEST_DELAY,
    REASON_HEADER,
    Redelivery,
    headers_of_letter,
)
from .packer import Packer
from .packets import AT_LEAST_ONCE
from .properties import problem_of, text_bytes
from .receipt import Receipt
from .topics import is_below

if TYPE_CHECKING:
    from .connection import Connection

logger = logging.getLogger(__name__)

MOMENT = 5.0
"""Seconds of rest by which others may be held up, when all that failed do so at once:
an outage of what the handlers need would else bury everything untried."""
MOST_RESTING = 10_000

_STOPPED = "the server stopped"
_LONGEST_REASON = 1024
_CONFIRM = 5.0
"""Seconds for the broker to confirm the last dead letters."""


class Failures:
    """The messages that rest, and those that are being buried.

    ``take(receipt)`` delivers once more. ``topic`` is the dead letters': each is
    published below it. ``forgets`` says that the broker keeps nothing of the session,
    so that what is not handled at the end must be buried; else ``most_unacknowledged``
    may rest at once for longer than a moment.
    """

    def __init__(
        self,
        redelivery: Redelivery,
        packer: Packer,
        topic: str,
        take: Callable[[Receipt], None],
        *,
        forgets: bool,
        most_unacknowledged: int,
    ) -> None:
        self._redelivery = redelivery
        self._packer = packer
        self._topic = topic
        self._take = take
        self._forgets = forgets
        self._most_unacknowledged = most_unacknowledged
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self.is_leaving = False
        self._resting: dict[Receipt, tuple[asyncio.TimerHandle, str]] = {}
        self._burying: set[asyncio.Future[int]] = set()
        self._unburied: set[Receipt] = set()

    def use(self, connection: "Connection") -> None:
        """Publish dead letters over this connection from now on."""
        self._connection = connection

    def __len__(self) -> int:
        """How many rest."""
        return len(self._resting)

    @property
    def unawaited(self) -> int:
        """How many the broker has forgotten, or was told that it may."""
        return sum(not receipt.is_awaited for receipt in self._resting)

    @property
    def unburied(self) -> int:
        """How many have a dead letter that the broker refused."""
        return len(self._unburied)

    # --- resting ---

    def retry(self, receipt: Receipt, delay: float | None, reason: str) -> None:
        """Deliver again after a while; too often is a dead letter."""
        rest = self._redelivery.after(receipt.deliveries)
        if reason == GIVEN_BACK:  # it stops: a handler has no such reason
            self.leave()
        if self.is_leaving:
            self._leave(receipt, reason)
        elif rest is None:
            self.bury(receipt, reason)
        else:
            self._try_later(receipt, rest if delay is None else delay, reason)

    def _try_later(self, receipt: Receipt, seconds: float, reason: str) -> None:
        """Have it rest, if it may.

        The broker sends so many at most that are not acknowledged: a few that rest for
        long would hold up all others.
        """
        holds_up = not self._forgets and seconds > MOMENT
        most = self._most_unacknowledged if holds_up else MOST_RESTING
        if len(self._resting) >= most:
            self.bury(receipt, f"{most} rest already ({reason})")
            return
        if self._forgets:
            receipt.acknowledge()  # a broker that forgets protects nothing
        self._rest(receipt, seconds, self._again, reason)

    def _rest(
        self,
        receipt: Receipt,
        seconds: float,
        then: Callable[[Receipt, str], None],
        reason: str,
    ) -> None:
        """Call ``then`` after a while."""
        timer = self._loop.call_later(seconds, self._rested, receipt, then, reason)
        self._resting[receipt] = (timer, reason)

    def _rested(
        self, receipt: Receipt, then: Callable[[Receipt, str], None], reason: str
    ) -> None:
        del self._resting[receipt]
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
        if self._is_letter(receipt):
            logger.error("A dead letter failed again: %s: %s.", topic, reason)
            receipt.acknowledge()
            return
        logger.error("A dead letter from %s: %s.", topic, reason)
        self._publish(receipt, reason)

    def _is_letter(self, receipt: Receipt) -> bool:
        """Whether it is a dead letter of ours; anybody may send such a header."""
        has_reason = REASON_HEADER in (receipt.message.headers or ())
        return has_reason and is_below(receipt.publish.topic, self._topic)

    def _publish(self, receipt: Receipt, reason: str) -> None:
        message, connection = receipt.message, self._connection
        if connection is None or connection.lost:
            self._put_off(receipt, reason)
            return
        try:
            future = self._published(connection, receipt, reason)
        except (MessageTooLarge, TransportRefused, ValueError) as error:
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
                self._unburied.discard(receipt)
                receipt.acknowledge()
            elif isinstance(error, TransportRefused) and receipt not in self._unburied:
                topic = shown(receipt.publish.topic)
                logger.error("The dead letter from %s was not taken: %s.", topic, error)
                self._refused(receipt, reason)
            else:
                self._put_off(receipt, reason)

        future.add_done_callback(confirmed)

    def _refused(self, receipt: Receipt, reason: str) -> None:
        """Keep a dead letter that the broker does not take.

        A few of them stay unacknowledged in a session that is kept. More would hold up
        all others, so that of those only we have the message.
        """
        count = max(len(self._resting), len(self._unburied))
        if self.is_leaving:
            self._put_off(receipt, reason)
        elif count >= MOST_RESTING:
            self._lose(receipt)
        else:
            if self._forgets or count >= self._most_unacknowledged:
                receipt.acknowledge()
            self._unburied.add(receipt)
            self._put_off(receipt, reason)

    def _put_off(self, receipt: Receipt, reason: str) -> None:
        """Publish it later; at the end the broker may have it still."""
        if not self.is_leaving:
            self._rest(receipt, LONGEST_DELAY, self._publish, reason)
        elif self._forgets or not receipt.is_awaited:
            self._lose(receipt)

    def _lose(self, receipt: Receipt) -> None:
        """Say so, and have the broker go on."""
        logger.error("It is lost: %s.", shown(receipt.publish.topic))
        receipt.acknowledge()

    def _published(
        self, connection: "Connection", receipt: Receipt, reason: str
    ) -> "asyncio.Future[int]":
        message = receipt.message
        headers = headers_of_letter(message.headers, reason, receipt.deliveries)
        letter = msgspec.structs.replace(message, id=UNSET, headers=headers)
        topic = f"{self._topic}/{receipt.publish.topic}"
        if problem_of(topic) is not None:  # with the prefix it is too long
            topic = self._topic
        properties, body = self._packer.pack(letter)
        return connection.publish(AT_LEAST_ONCE, text_bytes(topic), properties, body)

    # --- the end ---

    def leave(self) -> None:
        """Let nothing rest any more."""
        self.is_leaving = True
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
        if self._forgets or not receipt.is_awaited:
            self.bury(receipt, f"{_STOPPED} ({reason})" if reason else _STOPPED)
