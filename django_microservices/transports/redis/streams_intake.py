"""The server's half of Redis' streams."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from ...wire.messages import Message, Subscription
from ...wire.text import shown
from ..redelivery import GIVEN_BACK, Redelivery
from ..room import Room
from .answers import Answer, Answers, nobody
from .connection import LINGER
from .entries import (
    RedisStreamsWire,
    is_reply_name,
    milliseconds_of,
    read_fields,
)
from .groups import Groups, Stream
from .halves import Half
from .holdings import Held, Holdings
from .protocol import ReplyError, command, publish_head
from .upkeep import Upkeep

if TYPE_CHECKING:
    from ..base import Deliver
    from .streams import RedisStreamsTransport

logger = logging.getLogger(__name__)

BLOCK = 2.0
"""Seconds that a read waits for entries: it also tells that Redis lives."""
UNBLOCK = 0.05
"""Seconds after which a read that waits is ended once more."""
FEWEST = 8
"""Entries of each stream that a read asks for, where there is room for so many."""
MOST_RESTING = 10_000
"""Entries that rest before another try, at which no more are read."""

_LACKING = ("NOGROUP", "UNBLOCKED", "ERR no such key")
_REFUSED = ("WRONGTYPE", "NOPERM", "NOAUTH", "ERR unknown")


class StreamsIntake(Half):
    """Reads on one connection, does all else on another: a read waits."""

    def __init__(
        self, options: "RedisStreamsTransport", deliver: "Deliver", limit: int
    ) -> None:
        super().__init__(options.address, self._lost)
        self.options = options
        self.consumer = options.new_consumer()
        self.hands = self.lines.add()
        self.reader = self.lines.add()
        self.groups = Groups(options, self.hands)
        self.holdings = Holdings(
            self.hands,
            self.groups.name,
            self.consumer,
            Redelivery(options.max_deliveries, options.redelivery_delay),
            self.take,
        )
        self.answers = Answers(self.hands, deliver, options.max_frame_size)
        self.room = Room(limit, self.answers.deliver, _nothing, _nothing)
        self._reader_id = 0
        self._ahead = 0.0  # ms by which the clock of Redis is ahead of our loop's
        self._reading: asyncio.Future[Any] | None = None
        self._is_reading = False
        self._is_scheduled = False
        self._is_making = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---

    async def listen(self, subscriptions: Sequence[Subscription]) -> None:
        """Connect, and return when the group has its place in every stream."""
        names = Groups.names(subscriptions, self.options.key_prefix)
        await self.lines.open()
        try:
            self._reader_id = await self.reader.ask("CLIENT", "ID")
            seconds, micros = await self.hands.ask("TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
            self._ahead = now - self.lines.loop.time() * 1000
            await self.groups.begin(names)
        except ReplyError as error:
            raise self._error(str(error)) from None
        except ConnectionLost as error:
            message = f"{self.address}: {error}"
            raise NotConnected(message) from None
        self._run(Upkeep(self).run())
        self.want()

    def _error(self, text: str) -> Exception:
        message = f"{self.address} refuses: {shown(text)}"
        kind = TransportRefused if text.startswith(_REFUSED) else NotConnected
        return kind(message)

    def _lost(self) -> None:
        self.holdings.end()
        self.answers.cancel()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.lines.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def pause(self) -> None:
        """Read no more, give back what did not begin, and finish the rest."""
        await self._end()
        await self.room.empty()
        self.holdings.flush()
        self.hands.flush()

    async def close(self) -> None:
        """Leave; what is not done is at once there for others."""
        await self._end()
        self.holdings.flush()
        self.groups.forget_consumers(self.consumer)
        await self.lines.close()

    async def _end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        self.holdings.end()
        with contextlib.suppress(TimeoutError):  # Redis is mute
            async with asyncio.timeout(LINGER):
                await self._end_reading()
        self._give_back_waiting()

    async def _end_reading(self) -> None:
        unblock = command("CLIENT", "UNBLOCK", self._reader_id)
        while self._reading is not None and not self._reading.done():
            self.hands.send(unblock)  # the read itself may be on its way still
            await asyncio.wait((self._reading,), timeout=UNBLOCK)

    def _give_back_waiting(self) -> None:
        for message in self.room.drop():
            assert message.settle is not None
            message.settle("retry", None, GIVEN_BACK)

    # --- a group that is gone ---

    def failed(self, error: ReplyError) -> None:
        """Make groups again that are gone; end over anything else."""
        text = str(error)
        if not text.startswith(_LACKING):
            self.lines.end(self._error(text))
        elif not self._is_making:
            self._is_making = True
            self._run(self._make_again())

    async def _make_again(self) -> None:
        try:
            for stream in await self.groups.make():
                logger.warning(
                    "Group %s of stream %s was gone: it is made anew behind %s.",
                    shown(self.groups.name),
                    shown(stream.name.decode()),
                    stream.last.decode(),
                )
        except ReplyError as error:
            self.lines.end(self._error(str(error)))
        except ConnectionLost:
            return
        finally:
            self._is_making = False
        self.holdings.enter()
        self.want()

    # --- reading ---

    @property
    def free(self) -> int:
        """How many entries there is room for."""
        if self.holdings.is_ending or self.holdings.resting >= MOST_RESTING:
            return 0
        room = self.room
        return room.limit - room.in_flight - len(room.waiting)

    def want(self) -> None:
        """Read on, once this tick has made all the room that it makes."""
        if not (self._is_scheduled or self._is_reading):
            self._is_scheduled = True
            self.lines.loop.call_soon(self._read)

    def _read(self) -> None:
        self._is_scheduled = False
        free, streams = self.free, self.groups.streams
        if free <= 0 or self.lines.are_lost or not streams:
            return
        self._is_reading = True
        most = max(free // len(streams), min(free, FEWEST))
        self._reading = self.reader.ask(
            *("XREADGROUP", "GROUP", self.groups.name, self.consumer),
            *("COUNT", most, "BLOCK", int(BLOCK * 1000)),
            *("STREAMS", *streams, *">" * len(streams)),
        )
        self._reading.add_done_callback(self._came)

    def _came(self, reading: asyncio.Future[Any]) -> None:
        """Take what was read, if anything came in time."""
        self._is_reading = False
        error = reading.exception()
        if isinstance(error, ReplyError):
            self.failed(error)
        if error is not None:
            return
        for name, entries in reading.result() or ():
            stream = self.groups.streams[name]
            stream.last = entries[-1][0]
            for id_, fields in entries:
                self.take(stream, id_, fields, 1)
        self.want()

    def take(
        self,
        stream: Stream,
        id_: bytes,
        fields: Sequence[bytes] | None,
        deliveries: int,
    ) -> None:
        """Deliver an entry; it is Redis' until it is settled."""
        held = self.holdings.hold(stream, id_, fields or (), deliveries)
        if held is None:
            return
        if fields is None:  # it was removed from the stream meanwhile
            held.settle("ack")
        elif self.holdings.is_ending:
            held.settle("retry", None, GIVEN_BACK)
        elif deliveries > self.options.max_deliveries:
            held.settle(
                "dead", None, f"delivered {deliveries - 1} times, never settled"
            )
        else:
            self._deliver(held)

    def _deliver(self, held: Held) -> None:
        try:
            message, reply = read_fields(
                held.stream.pattern, held.fields, self.options.max_frame_size
            )
        except (InvalidMessage, MessageTooLarge) as error:
            held.settle("dead", None, str(error))
            return
        message.wire = RedisStreamsWire(
            held.stream.name.decode(), held.id.decode(), held.deliveries
        )
        message.settle = held.settle
        if message.is_event:
            self.room.take(message, nobody, partial(self._finished, held, None))
        elif reply is None or not is_reply_name(reply, self.options.key_prefix):
            held.settle("dead", None, "it names no channel of answers")
        elif self._is_too_late(message, held):
            held.settle("ack")
        else:
            answer = Answer(self.answers, publish_head(reply))
            self.room.take(message, answer, partial(self._finished, held, answer))

    def _is_too_late(self, message: Message, held: Held) -> bool:
        """Whether the caller has given up, while the request lay in the stream."""
        if message.timeout is None:
            return False
        now = self.lines.loop.time() * 1000 + self._ahead
        message.timeout -= max(0.0, now - milliseconds_of(held.id)) / 1000
        return message.timeout <= 0

    def _finished(self, held: Held, answer: Answer | None, delivery: Any) -> None:
        held.finished(delivery)
        if answer is not None:
            answer.finished(delivery)
        if delivery.reason == GIVEN_BACK:  # the server stops: begin nothing more
            self._give_back_waiting()
        self.want()


def _nothing() -> None:
    """Neither pause nor resume: we read only what there is room for."""
