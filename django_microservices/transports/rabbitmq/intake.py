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
from .frames import publish
from .methods import Consume
from .names import DIRECT_REPLY_TO
from .properties import essentials
from .protocol import Content

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from ..base import Deliver
    from .transport import RabbitMQTransport

UNSENT = 16 * 1024 * 1024
"""Bytes of answers that wait for a broker that takes nothing; more are dropped."""
_MOST_KNOWN = 1024


class Intake:
    """A consumer of one queue.

    It has two connections, because the broker stops reading from one that publishes
    while memory or disk is short: acknowledgements must reach it all the same, or the
    queue that fills the memory could never be emptied.
    """

    def __init__(
        self,
        options: "RabbitMQTransport",
        consuming: Connection,
        publishing: Connection,
        deliver: "Deliver",
        limit: int,
    ) -> None:
        loop = consuming.loop
        self.options = options
        self.consuming = consuming
        self.publishing = publishing
        self.deliver = deliver
        self.limit = limit
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.queue = ""
        self.is_private = False
        self.is_pausing = False
        self.refused = 0
        self.dropped = 0
        self.unfinished: set[Arrival] = set()
        self.channel = Channel(consuming)
        self.replies = Channel(publishing)
        self._tag = ""
        self._room: Room | None = None
        self._starts: dict[bytes, bytes] = {}
        self._idle: asyncio.Future[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        for connection in (consuming, publishing):
            connection.closed.add_done_callback(self._lost)
        # From the first moment on, so that an end is never missed.
        self.channel.ended = self.replies.ended = self._ended

    @property
    def driver(self) -> Connection:
        """The connection that consumes."""
        return self.consuming

    @property
    def address(self) -> str:
        """The broker and the queue."""
        return f"{self.consuming.address}, queue {self.queue!r}"

    # --- life ---

    async def open(self, keys: "Iterable[str]") -> None:
        """Declare, bind, and return once the broker has our consumer.

        Raises what :meth:`BrokerClosed.when_opening` makes of a refusal.
        """
        try:
            await self._listen_to_callers()
            await self.channel.open()
            await self._declare(keys)
            await self._consume()
        except BrokerClosed as refusal:
            raise refusal.when_opening() from refusal
        self._watching = asyncio.ensure_future(
            watch_callers(self.publishing, self.unfinished)
        )

    async def _listen_to_callers(self) -> None:
        """Consume what answers our answers: that nobody wants any more of them."""
        channel = self.replies
        await channel.open()
        channel.delivered = self._called_off
        await channel.call(Consume(queue=DIRECT_REPLY_TO, no_ack=True))

    async def _declare(self, keys: "Iterable[str]") -> None:
        topology = self.options.topology
        self.queue = await topology.declare_queue(self.channel)
        self.is_private = not topology.queue
        self.acks = Acks(self.channel)
        self.failures = Failures(
            self,
            self.publishing,
            self.options.redelivery,
            self.options.dead_letters_of(self.queue),
        )
        await topology.declare_exchange(self.channel)
        await topology.bind(self.channel, self.queue, keys)

    async def _consume(self) -> None:
        options, prefetch = self.options, self._prefetch
        if options.no_ack or not 0 < prefetch <= self.limit:
            pause, resume = self.consuming.pause_reading, self.consuming.resume_reading
            self._room = Room(self.limit, self._begin, pause, resume)
        await self.channel.call(
            commands.Basic.Qos(0, prefetch, options.is_global_prefetch_count)
        )
        self.channel.delivered = self._delivered
        self.channel.cancelled = self._cancelled
        consumer = Consume(
            queue=self.queue, consumer_tag=options.consumer_tag, no_ack=options.no_ack
        )
        self._tag = (await self.channel.call(consumer)).consumer_tag

    @property
    def _prefetch(self) -> int:
        """How many messages the broker sends ahead; 0 is no bound."""
        given = self.options.prefetch_count
        if given is not None or self.options.no_ack:
            return given or 0
        return min(self.limit, _MOST_PREFETCHED)

    def _cancelled(self, _: Any) -> None:
        self._end(ConnectionLost(f"the queue {self.queue!r} was deleted"))

    def _ended(self, reason: MicroserviceError) -> None:
        self._end(ConnectionLost(str(reason)))

    def _lost(self, closed: "asyncio.Future[MicroserviceError]") -> None:
        self._end(closed.result())

    def _end(self, reason: MicroserviceError) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

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
        self.check_idle()

    # --- out ---

    def reply(
        self, reply_to: bytes, properties: bytes, text: bytes
    ) -> "Awaitable[None] | None":
        """Publish an answer; an awaitable says that the broker takes nothing now."""
        connection, channel = self.publishing, self.replies
        gate = connection.gate
        if not gate.is_open and connection.unsent > UNSENT:
            self.dropped += 1
            return None
        if connection.lost:
            return None
        start = self._starts.get(reply_to)
        if start is None:
            if len(self._starts) >= _MOST_KNOWN:
                self._starts.clear()
            start = publish(channel.number, "", reply_to)
            self._starts[reply_to] = start
        channel.send(start, properties, text)
        return None if gate.is_open else gate.passed()

    # --- the end ---

    async def pause(self) -> None:
        """Take nothing new; return when what was accepted is answered and settled.

        What the broker sent ahead and no handler has begun goes back to its queue.
        """
        self.is_pausing = True
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
        return bool(self.unfinished or self.failures.tasks)

    def check_idle(self) -> None:
        """Wake who waits for the last message."""
        if self._idle is not None and not self._is_busy:
            self._idle.set_result(None)
            self._idle = None

    async def close(self) -> None:
        """Give back what is left; return when the broker has handled the rest."""
        self.is_pausing = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for arrival in tuple(self.unfinished):
            if arrival.reply_to is not None:
                arrival.delivery.cancel()  # nobody can be answered any more
        if self.queue:
            await self.failures.close()
            self.acks.write()
        if self.channel.is_open:
            self.consuming.resume_reading()
            with contextlib.suppress(MicroserviceError, TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self.channel.close()
        self._end(ConnectionLost("the server has stopped"))
        await asyncio.gather(self.consuming.close(), self.publishing.close())


_MOST_PREFETCHED = 65_535
