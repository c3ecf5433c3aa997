"""Messages that failed: tried again later, or published as dead letters.

Only when the broker has confirmed the copy is the message itself acknowledged, so that
nothing is lost between the two.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from ...exceptions import MicroserviceError
from ..redelivery import Redelivery
from .afterlife import Copy, copy_to_retry, dead_letter, deliveries_of
from .channel import Channel
from .connection import Connection
from .delays import Delays, declare_dead_letters
from .frames import publish

if TYPE_CHECKING:
    from .arrivals import Arrival
    from .intake import Intake

logger = logging.getLogger(__name__)

REST = 5.0
"""Seconds before a message is given back whose copy the broker did not take."""


class Failures:
    """Retries and dead letters of one queue; each message is a task until it is told.

    ``dead_letters`` names their queue; with none the broker has its own, or drops them.
    """

    def __init__(
        self,
        intake: "Intake",
        connection: Connection,
        redelivery: Redelivery,
        dead_letters: str,
    ) -> None:
        self.intake = intake
        self.connection = connection
        self.redelivery = redelivery
        self.dead_letters = dead_letters
        self.delays = Delays(connection)
        self.tasks: dict[asyncio.Task[None], Arrival] = {}
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self.is_closed = False
        self._has_dead_letters = False

    def take(
        self, arrival: "Arrival", outcome: str, delay: float | None, reason: str
    ) -> None:
        """Begin to settle a message whose outcome is "retry" or "dead"."""
        acks = self.intake.acks
        if self.is_closed:
            return  # the broker has given it to somebody else
        if outcome == "dead" and not self.dead_letters:
            logger.warning("Rejected a message: %s.", reason)
            acks.reject(arrival.tag)
        elif outcome == "retry" and self.intake.is_pausing:
            acks.requeue(arrival.tag)
        else:
            work = self._settle(arrival, outcome, delay, reason)
            task = asyncio.ensure_future(work)
            self.tasks[task] = arrival
            task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[None]") -> None:
        arrival = self.tasks.pop(task)
        if task.cancelled():
            self.intake.acks.requeue(arrival.tag)
        else:
            task.result()
        self.intake.check_idle()

    async def _settle(
        self, arrival: "Arrival", outcome: str, delay: float | None, reason: str
    ) -> None:
        acks = self.intake.acks
        try:
            if outcome == "retry" and await self._retry(arrival, delay):
                acks.ack(arrival.tag)
            elif self.dead_letters:
                await self._bury(arrival, reason)
                acks.ack(arrival.tag)
            else:
                acks.reject(arrival.tag)
        except (MicroserviceError, ValueError) as error:
            logger.warning("What failed is given back in %g s: %s", REST, error)
            await asyncio.sleep(REST)
            acks.requeue(arrival.tag)

    async def _retry(self, arrival: "Arrival", delay: float | None) -> bool:
        """Publish the message for another try, unless it has had enough of them."""
        content = arrival.content
        deliveries = deliveries_of(content)
        seconds = self.redelivery.after(deliveries)
        if seconds is None:
            return False
        if delay is not None:
            seconds = delay
        queue = self.intake.queue
        if self.intake.is_private:
            await asyncio.sleep(seconds)
        elif seconds:
            queue = await self.delays.queue_for(queue, seconds)
        await self._publish(queue, copy_to_retry(content, deliveries))
        return True

    async def _bury(self, arrival: "Arrival", reason: str) -> None:
        content = arrival.content
        if not self._has_dead_letters:
            await declare_dead_letters(self.connection, self.dead_letters)
            self._has_dead_letters = True
        copy = dead_letter(content, deliveries_of(content), reason)
        try:
            await self._publish(self.dead_letters, copy)
        except MicroserviceError:
            self._has_dead_letters = False
            raise
        logger.warning("A dead letter in %r: %s.", self.dead_letters, reason)

    async def _publish(self, queue: str, copy: Copy) -> None:
        """Publish to a queue; return when the broker has confirmed it."""
        channel = await self._open_channel()
        await self.connection.gate.passed()
        start = publish(channel.number, "", queue, mandatory=True)
        channel.send(start, copy.properties, copy.body)
        assert channel.confirms is not None
        await channel.confirms.expect(copy.name)

    async def _open_channel(self) -> Channel:
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                channel = Channel(self.connection)
                await channel.open(confirms=True)
                self._channel = channel
            return self._channel

    async def close(self) -> None:
        """Give back what is not settled yet."""
        self.is_closed = True
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
