"""Messages that failed: tried again later, or published as dead letters.

Only when the broker has confirmed the copy is the message itself acknowledged, so that
nothing is lost between the two.

A message of a quorum queue rests here, unacknowledged: what expires in another queue
comes back without a confirm, and is lost if the queue has no leader at that moment, as
after a restart. (With ``x-dead-letter-strategy`` nothing is lost, but 3.10 may then
take nothing more after a restart: tried.)
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...exceptions import MicroserviceError, TransportRefused
from ..redelivery import Redelivery
from .afterlife import Copy, copy_to_retry, dead_letter, deliveries_of
from .channel import Channel
from .connection import Connection
from .delays import LEVELS, LONGEST_DELAY, Delays, declare_dead_letters
from .errors import BrokerClosed
from .frames import publish, room_of

if TYPE_CHECKING:
    from .arrivals import Arrival
    from .intake import Intake

logger = logging.getLogger(__name__)

REST = 5.0
"""Seconds before the broker is asked again to take a copy."""
LONGEST_HERE = 900.0
"""Seconds: after 30 minutes the broker itself ends a consumer that settles nothing."""
_TRIES = 3
"""How often it is asked to take one for another try, which is then a dead letter."""


class Failures:
    """Retries and dead letters of one queue; each message is a task until it is told.

    ``dead_letters`` names their queue; with none the broker has its own, or drops them.
    ``untaken`` are the messages of which the broker refused a copy: they hold their
    places until it takes one.
    """

    def __init__(
        self,
        intake: "Intake",
        connection: Connection,
        redelivery: Redelivery,
    ) -> None:
        self.intake = intake
        self.redelivery = redelivery
        self.rest_here = intake.options.topology.is_quorum
        self.dead_letters = ""
        self.tasks: dict[asyncio.Task[None], Arrival] = {}
        self.untaken: set[Arrival] = set()
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.is_closed = False
        self._has_dead_letters = False
        self.move(connection)

    def move(self, connection: Connection) -> None:
        """Publish by another connection from now on."""
        self.connection = connection
        self.delays = Delays(connection)

    async def prepare(self, dead_letters: str) -> None:
        """Declare what a failure will need, so that no refusal waits for the first one.

        Raises :class:`TransportRefused` for what will never be taken.
        """
        self.dead_letters = dead_letters
        if dead_letters:
            with _needed("dead_letter_queue", dead_letters):
                await self._declare_dead_letters()
        if self.redelivery.after(1) and not self.rest_here:
            with _needed("redelivery_delay", f"{self.intake.queue}.retry"):
                await self.delays.queue_for(self.intake.queue, LEVELS[0])

    async def _declare_dead_letters(self) -> None:
        if not self._has_dead_letters:
            await declare_dead_letters(self.connection, self.dead_letters)
            self._has_dead_letters = True

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
        elif outcome == "retry" and self._stopping.is_set():
            acks.requeue(arrival.tag)
        else:
            work = self._settle(arrival, outcome, delay, reason)
            task = asyncio.ensure_future(work)
            self.tasks[task] = arrival
            task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[None]") -> None:
        arrival = self.tasks.pop(task)
        self.untaken.discard(arrival)
        if task.cancelled():
            self.intake.acks.requeue(arrival.tag)
        else:
            task.result()
        self.intake.check_idle()

    async def _settle(
        self, arrival: "Arrival", outcome: str, delay: float | None, reason: str
    ) -> None:
        """Settle it whatever happens: what is never settled holds its place for ever.

        The handler has done what it could. So the broker is asked again for its copy,
        and the message given back only by a server that stops.
        """
        acks, tries = self.intake.acks, 0
        while True:
            try:
                return await self._copied(arrival, outcome, delay, reason)
            except MicroserviceError as error:
                tries += 1
                logger.warning("A copy is published again in %g s: %s", REST, error)
                self.untaken.add(arrival)
                self.delays.forget()
                self._has_dead_letters = False
                if not await self._rested(REST):
                    return acks.requeue(arrival.tag)
            except Exception:
                logger.exception("No copy can be made (%s: %s).", outcome, reason)
                if outcome == "dead":
                    return acks.reject(arrival.tag)
                tries = _TRIES
            if tries >= _TRIES:
                outcome = "dead"

    async def _rested(self, seconds: float) -> bool:
        """Wait a while; return whether the server goes on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return not self._stopping.is_set()

    async def _copied(
        self, arrival: "Arrival", outcome: str, delay: float | None, reason: str
    ) -> None:
        """Publish a copy, and then acknowledge the message."""
        acks = self.intake.acks
        if outcome == "retry" and await self._retry(arrival, delay):
            acks.ack(arrival.tag)
        elif self.dead_letters:
            await self._bury(arrival, reason)
            acks.ack(arrival.tag)
        else:
            acks.reject(arrival.tag)

    async def _retry(self, arrival: "Arrival", delay: float | None) -> bool:
        """Publish the message for another try, unless it has had enough of them."""
        content = arrival.content
        deliveries = deliveries_of(content)
        seconds = self.redelivery.after(deliveries)
        if seconds is None:
            return False
        if delay is not None:
            seconds = delay
        longest = LONGEST_HERE if self.rest_here else LONGEST_DELAY
        if seconds > longest:
            logger.warning("A rest of %g s becomes %g s.", seconds, longest)
            seconds = longest
        queue = self.intake.queue
        if seconds and not self.rest_here:
            queue = await self.delays.queue_for(queue, seconds)
        elif seconds and not await self._rested(seconds):
            raise asyncio.CancelledError  # as one that is: it is given back
        await self._publish(queue, copy_to_retry(content, deliveries, self._room))
        return True

    async def _bury(self, arrival: "Arrival", reason: str) -> None:
        content = arrival.content
        await self._declare_dead_letters()
        deliveries = deliveries_of(content)
        copy = dead_letter(content, deliveries, self._room, reason)
        await self._publish(self.dead_letters, copy)
        logger.warning("A dead letter in %r: %s.", self.dead_letters, reason)

    @property
    def _room(self) -> int:
        return room_of(self.connection.frame_max)

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

    def stop(self) -> None:
        """Try nothing again from now on: what would be is given back."""
        self._stopping.set()

    async def close(self) -> None:
        """Give back what is not settled yet."""
        self.stop()
        self.is_closed = True
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@contextlib.contextmanager
def _needed(option: str, queue: str) -> Iterator[None]:
    """Have a refusal name the option that wants a queue, and what is wanted for it."""
    try:
        yield
    except BrokerClosed as refusal:
        if not refusal.is_refusal:
            raise
        message = (
            f"{option}: {refusal} (a server declares {queue!r}, and needs the "
            "permission to configure it)"
        )
        raise TransportRefused(message) from refusal
