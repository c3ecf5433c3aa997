"""The server's half of Redis' streams."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
)
from ...wire.messages import Message, Subscription
from ..redelivery import GIVEN_BACK, is_given_back
from ..room import Room
from .answers import Answer, Answers, nobody
from .connection import LINGER
from .entries import RedisStreamsWire, milliseconds_of, read_fields
from .groups import Groups, Stream
from .halves import Half
from .holdings import Held, Holdings
from .protocol import ReplyError, publish_head
from .reader import Reader
from .refusals import is_foreign, is_gone, refusal
from .reply_names import is_reply_name
from .upkeep import Upkeep

if TYPE_CHECKING:
    from ..base import Deliver
    from .streams import RedisStreamsTransport


class StreamsIntake(Half):
    """Reads on one connection, does all else on another: a read waits."""

    def __init__(
        self, options: "RedisStreamsTransport", deliver: "Deliver", limit: int
    ) -> None:
        super().__init__(options.address, self._lost)
        self.options = options
        self.hands = self.lines.add()
        self.groups = Groups(options, self.hands)
        self.holdings = Holdings(self.hands, self.groups, options, self.take)
        self.answers = Answers(self.hands, deliver, options.max_frame_size)
        self.room = Room(limit, self.answers.deliver, _nothing, _nothing)
        self.reader = Reader(self, self.lines.add())
        self.upkeep = Upkeep(self)
        self._ahead = 0.0  # ms by which the clock of Redis is ahead of our loop's
        self._mending: asyncio.Task[None] | None = None

    # --- life ---

    async def listen(self, subscriptions: Sequence[Subscription]) -> None:
        """Connect, and return when the group has its place in every stream."""
        names = Groups.names(subscriptions, self.options.key_prefix)
        await self.lines.open()
        try:
            await self.reader.open()
            seconds, micros = await self.hands.ask("TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
            self._ahead = now - self.lines.loop.time() * 1000
            await self.groups.begin(names)
        except ReplyError as error:
            raise refusal(self.address, error) from None
        except ConnectionLost as error:
            message = f"{self.address}: {error}"
            raise NotConnected(message) from None
        self.holdings.go_on()
        self.upkeep.begin()
        self.reader.want()

    def _lost(self) -> None:
        self.holdings.end()
        self.answers.cancel()

    async def pause(self) -> None:
        """Read no more, give back what did not begin, and finish the rest."""
        await self._end_reading()
        await self.room.empty()
        self.holdings.flush()
        self.hands.flush()

    async def close(self) -> None:
        """Leave; what is not done is at once there for others."""
        await self._end_reading()
        await self.upkeep.end()
        if self._mending is not None:
            self._mending.cancel()
        self.holdings.flush()
        self.groups.forget_consumers(self.groups.consumer)
        await self.lines.close()

    async def _end_reading(self) -> None:
        self.holdings.end()
        with contextlib.suppress(TimeoutError):  # Redis is mute
            async with asyncio.timeout(LINGER):
                await self.reader.end()
        self._give_back_waiting()

    def _give_back_waiting(self) -> None:
        for message in self.room.drop():
            assert message.settle is not None
            message.settle("retry", None, GIVEN_BACK)

    # --- what is gone, or in its place ---

    def failed(self, error: ReplyError) -> None:
        """Mend what somebody took away; end over anything else."""
        if is_gone(error) or is_foreign(error):
            self.mend()
        else:
            self.lines.end(refusal(self.address, error))

    def mend(self) -> None:
        """Make groups again that are gone, in a task."""
        if self._mending is None or self._mending.done():
            self._mending = self.lines.loop.create_task(self._mend())

    async def _mend(self) -> None:
        try:
            await self.groups.mend()
        except ReplyError as error:
            self.lines.end(refusal(self.address, error))
        except ConnectionLost:
            return
        self.holdings.enter()
        self.reader.want()

    # --- in ---

    @property
    def free(self) -> int:
        """How many entries there is room for."""
        if self.holdings.is_ending:
            return 0
        room = self.room
        return room.limit - room.in_flight - len(room.waiting)

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
        if is_given_back(delivery):  # the server stops: begin nothing more
            self._give_back_waiting()
        self.reader.want()


def _nothing() -> None:
    """Neither pause nor resume: we read only what there is room for."""
