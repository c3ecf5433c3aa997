"""The server's half of the RabbitMQ wire."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from pamqp import commands

from ...exceptions import ConnectionLost, MicroserviceError
from ...wire.messages import Message
from ..room import Room
from .acks import Acks
from .arrivals import Arrival
from .callers import watch_callers
from .channel import Channel
from .connection import LINGER, Connection
from .errors import BrokerClosed
from .failures import Failures
from .methods import MOST_PREFETCHED, Consume
from .properties import essentials
from .protocol import Content
from .publishing import Publishing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..base import Deliver
    from .transport import RabbitMQTransport


class Intake:
    """A consumer of one queue.

    It has two connections, because the broker stops reading from one that publishes
    while memory or disk is short: acknowledgements must reach it all the same, or the
    queue that fills the memory could never be emptied. One that answered is opened
    anew where it alone is lost: what runs is not run again for that.
    """

    def __init__(
        self,
        options: "RabbitMQTransport",
        consuming: Connection,
        publishing: Connection,
        connect: "Callable[[], Awaitable[Connection]]",
        deliver: "Deliver",
        *,
        limit: int,
    ) -> None:
        loop = consuming.loop
        self.options = options
        self.consuming = consuming
        self.publishing = Publishing(
            publishing, connect, self._called_off, self._torn, self._end
        )
        self.publishing.moved = self._moved
        self.deliver = deliver
        self.limit = limit
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.queue = ""
        self.refused = 0
        self.unfinished: set[Arrival] = set()
        self.inherited: set[Arrival] = set()
        self.channel = Channel(consuming)
        self.acks = Acks(self.channel)
        self.failures = Failures(self, publishing, options.redelivery)
        self._tag = ""
        self._room: Room | None = None
        self._idle: asyncio.Future[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        # From the first moment on, so that an end is never missed.
        consuming.closed.add_done_callback(self._lost)
        self.channel.ended = self._ended

    @property
    def driver(self) -> Connection:
        """The connection that consumes."""
        return self.consuming

    @property
    def address(self) -> str:
        """The broker and the queue."""
        return f"{self.consuming.address}, queue {self.queue!r}"

    @property
    def unburied(self) -> int:
        """How many of the ``limit`` places the broker fills no more.

        It sends ``prefetch_count`` messages ahead, be that less or more.
        """
        untaken, prefetch = len(self.failures.untaken), self._prefetch
        if not (untaken and prefetch):
            return 0
        return max(0, self.limit - max(0, prefetch - untaken))

    # --- life ---

    async def open(self, keys: "Iterable[str]") -> None:
        """Declare, bind, and return once the broker has our consumer.

        Raises what :meth:`BrokerClosed.when_opening` makes of a refusal.
        """
        try:
            await self.publishing.open()
            await self.channel.open()
            await self._declare(keys)
            await self._consume()
        except BrokerClosed as refusal:
            raise refusal.when_opening() from refusal
        self._watching = asyncio.ensure_future(
            watch_callers(self.publishing, self.unfinished)
        )

    async def _declare(self, keys: "Iterable[str]") -> None:
        options, topology = self.options, self.options.topology
        self.queue = await topology.declare_queue(self.channel)
        if not options.no_ack:
            await self.failures.prepare(options.dead_letters_of(self.queue))
        await topology.declare_exchange(self.channel)
        await topology.bind(self.channel, self.queue, keys)

    async def _consume(self) -> None:
        options, prefetch, left = self.options, self._prefetch, self._predecessor()
        if options.no_ack or left is not None or not 0 < prefetch <= self.limit:
            pause, resume = self.consuming.pause_reading, self.consuming.resume_reading
            self._room = Room(self.limit, self._begin, pause, resume)
        if left is not None and self._room is not None:
            left.leave_to(self, self._room)
        await self.channel.call(
            commands.Basic.Qos(0, prefetch, options.is_global_prefetch_count)
        )
        self.channel.delivered = self._delivered
        self.channel.cancelled = self._cancelled
        consumer = Consume(
            queue=self.queue, consumer_tag=options.consumer_tag, no_ack=options.no_ack
        )
        self._tag = (await self.channel.call(consumer)).consumer_tag

    def _predecessor(self) -> "Intake | None":
        """Return the intake of the connection before, if it left something."""
        left = self.options.left.pop(self.deliver, None)
        if left is None or left.consuming.loop is not self.consuming.loop:
            return None
        return left

    def leave_to(self, heir: "Intake", room: Room) -> None:
        """Hand over what runs, which holds its place, and what waits for one.

        Of all this the broker wants to hear nothing any more.
        """
        for arrival in self.unfinished:
            arrival.intake, arrival.is_settled = heir, True
        heir.inherited.update(self.unfinished)
        heir.unfinished.update(self.unfinished)
        room.in_flight += len(self.unfinished)
        self.unfinished.clear()
        if self._room is not None:
            for _, respond, *_ in self._room.waiting:
                respond.__self__.intake = heir  # type: ignore[attr-defined]
            room.waiting.extend(self._room.waiting)
            room.weight += self._room.weight
            self._room.drop()

    @property
    def _prefetch(self) -> int:
        """How many messages the broker sends ahead; 0 is no bound."""
        given = self.options.prefetch_count
        if given is not None or self.options.no_ack:
            return given or 0
        return min(self.limit, MOST_PREFETCHED)

    def _cancelled(self, _: Any) -> None:
        self._end(ConnectionLost(f"the queue {self.queue!r} was deleted"))

    def _ended(self, reason: MicroserviceError) -> None:
        self._end(ConnectionLost(str(reason)))

    def _lost(self, closed: "asyncio.Future[MicroserviceError]") -> None:
        self._end(closed.result())

    def _end(self, reason: MicroserviceError) -> None:
        """Begin nothing more that the broker gives to somebody else."""
        if not self.options.no_ack:
            self.channel.delivered = _unwanted
            if self._room is not None:
                self._room.drop()
        if not self.closed.done():
            self.closed.set_result(reason)

    def _torn(self) -> None:
        for arrival in tuple(self.unfinished):
            arrival.tear()

    def _moved(self, connection: Connection) -> None:
        self.failures.move(connection)
        self.check_idle()

    # --- in ---

    def _delivered(self, content: Content) -> None:
        """Read one message and deliver it."""
        arrival = Arrival(self, content)
        if self.options.no_ack:
            arrival.is_settled = True
        else:
            self.acks.expect(arrival.tag)
        message = arrival.read()
        if message is None:
            return
        if self._room is not None:
            self._room.take(message, arrival.respond, arrival.finished)
        else:
            self._begin(message, arrival.respond).when_done(arrival.finished)

    def _begin(self, message: Message, respond: Any) -> Any:
        """Hand a message over; what is not done at once is kept in mind."""
        delivery = self.deliver(message, respond)
        if delivery.outcome is None:
            arrival: Arrival = respond.__self__
            arrival.delivery = delivery
            self.unfinished.add(arrival)
        return delivery

    def _called_off(self, content: Content) -> None:
        """Cancel a stream whose reader has left (our own extension of the wire)."""
        id_ = essentials(content.properties)[1]
        for arrival in self.unfinished:
            if arrival.correlation_id == id_:
                arrival.delivery.cancel()
                return

    def finished(self, arrival: Arrival) -> None:
        """Forget what is done."""
        self.unfinished.discard(arrival)
        if arrival in self.inherited:
            self.inherited.discard(arrival)
            assert self._room is not None
            self._room.finished(arrival)
        self.check_idle()

    # --- the end ---

    async def pause(self) -> None:
        """Take nothing new; return when what was accepted is answered and settled.

        What the broker sent ahead and no handler has begun goes back to its queue.
        """
        self.failures.stop()
        self.consuming.resume_reading()  # its answer must be heard
        try:
            await self.channel.call(commands.Basic.Cancel(self._tag))
        except MicroserviceError:
            return  # the broker gives it all to somebody else
        if self._room is not None and not self.options.no_ack:
            for message in self._room.drop():
                assert message.settle is not None
                message.settle("retry", None, "")
        elif self._room is not None:
            await self._room.empty()
        while self._is_busy and not self.closed.done():
            self._idle = self.consuming.loop.create_future()
            await asyncio.wait(
                (self._idle, self.closed), return_when=asyncio.FIRST_COMPLETED
            )

    @property
    def _is_busy(self) -> bool:
        return bool(self.unfinished or self.failures.tasks or self.publishing.waiting)

    def check_idle(self) -> None:
        """Wake who waits for the last message."""
        if self._idle is not None and not self._is_busy:
            self._idle.set_result(None)
            self._idle = None

    async def close(self) -> None:
        """Give back what is left; return when the broker has handled the rest."""
        self._end(ConnectionLost("the server has stopped"))
        self.failures.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for arrival in tuple(self.unfinished):
            if arrival.reply_to is not None:
                arrival.delivery.cancel()  # nobody can be answered any more
        await self.failures.close()
        self.acks.write()
        if self.channel.is_open:
            self.consuming.resume_reading()
            with contextlib.suppress(MicroserviceError, TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self.channel.close()
        if self.unfinished:  # what waits, waits for these
            self.options.left[self.deliver] = self
        await asyncio.gather(self.consuming.close(), self.publishing.close())


def _unwanted(_: Content) -> None:
    """Leave a message to somebody else."""
