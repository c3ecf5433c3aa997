"""The server's half of Redis' pub/sub."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...exceptions import NotConnected
from ...wire.channels import read_channel_message
from ...wire.headers import REPLY_HEADER
from ...wire.messages import UNSET, Message, Reply, Subscription
from ...wire.packets import find_id, write_reply
from ...wire.patterns import REDIS_GLOB
from ...wire.text import shown
from ...wire.unreadable import TOO_LARGE_ERROR, unreadable
from ..room import Room
from .answers import Answer, Answers, nobody
from .halves import Half
from .protocol import ReplyError, name_of, publish, publish_head
from .refusals import refusal
from .reply_names import is_any_reply_name, reply_name_of

if TYPE_CHECKING:
    from ..base import Deliver
    from .transport import RedisTransport

logger = logging.getLogger(__name__)

REPLY = ".reply"
_MOST_REMEMBERED = 4096


class RedisWire(msgspec.Struct, frozen=True):
    """What only Redis knows of a message: ``context.wire``."""

    channel: str
    """Where it was published, whatever pattern brought it."""


class Channel(NamedTuple):
    """What the messages of a channel have in common that came by one subscription.

    ``head`` begins their answers, of which we get ``echoes`` ourselves, by wildcards;
    ``subscription`` is set where Redis makes copies.
    """

    name: str
    wire: RedisWire
    head: bytes
    echoes: int
    subscription: Subscription | None


class Intake(Half):
    """Listens on one connection, answers on another."""

    def __init__(
        self,
        options: "RedisTransport",
        deliver: "Deliver",
        limit: int,
    ) -> None:
        super().__init__(options.address, self._lost)
        self.options = options
        self.pub = self.lines.add()
        self.sub = self.lines.add(self._received)
        self.answers = Answers(
            self.pub, deliver, options.max_frame_size, options.max_stream_age
        )
        self.room = Room(
            limit,
            self.answers.deliver,
            self.sub.pause_reading,
            self.sub.resume_reading,
        )
        self.dropped = 0
        self._subscriptions: dict[bytes, Subscription] = {}
        self._channels: dict[Any, Channel] = {}

    # --- life ---

    async def listen(self, subscriptions: Sequence[Subscription]) -> None:
        """Connect, and return when Redis has confirmed every subscription."""
        await self.lines.open()
        for subscription in subscriptions:
            name = name_of(subscription.pattern.route)
            self._subscriptions.setdefault(name, subscription)
        asked = [self.sub.ask(self._verb(name), name) for name in self._subscriptions]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, ReplyError):
                raise refusal(self.address, answer)
            if isinstance(answer, BaseException):
                message = f"{self.address}: {answer}"
                raise NotConnected(message)

    def _verb(self, name: bytes, prefix: str = "") -> str:
        wild = self.options.wildcards and REDIS_GLOB.is_wildcard(name.decode())
        return f"P{prefix}SUBSCRIBE" if wild else f"{prefix}SUBSCRIBE"

    def _lost(self) -> None:
        """Cancel what was asked for: no answer reaches anybody any more."""
        self.answers.cancel()

    async def pause(self) -> None:
        """Unsubscribe; return when all is answered that came before."""
        asked = [
            self.sub.ask(self._verb(name, "UN"), name) for name in self._subscriptions
        ]
        await asyncio.gather(*asked, return_exceptions=True)
        await self.room.empty()
        self.pub.flush()

    async def close(self) -> None:
        """Leave, once Redis has the answers.

        After a loss what still waits for room goes on: Redis knows nothing of it.
        """
        if not self.lines.are_lost:
            self._drop_waiting()
        await self.lines.close()

    def _drop_waiting(self) -> None:
        if dropped := self.room.drop():
            self.dropped += len(dropped)
            logger.warning("Dropped %d messages that had no room yet.", len(dropped))

    # --- in ---

    def _received(self, value: list[bytes]) -> None:
        """Deliver a message, now or when there is room."""
        key = value[1] if len(value) == _UNGLOBBED else (value[1], value[2])
        if (channel := self._channels.get(key)) is None:
            if is_any_reply_name(value[-2]):  # a wildcard brought somebody's answer
                self._drop(value[-2].decode())
                return
            channel = self._new_channel(key, value)
        body = value[-1]
        if len(body) > self.options.max_frame_size:
            arrived: Message | Reply | None = unreadable(
                find_id(body),
                f"{len(body)} bytes are too many for {shown(channel.name)}",
                TOO_LARGE_ERROR,
            )
        else:
            arrived = read_channel_message(
                channel.name, body, reply_suffix=REPLY, takes_text=True
            )
        if isinstance(arrived, Message):
            arrived.wire = channel.wire
            arrived.subscription = channel.subscription
            if arrived.id is UNSET:
                self.room.take(arrived, nobody)
            else:
                answer = self._answer(arrived, channel)
                self.room.take(arrived, answer, answer.finished)
        elif arrived is not None:
            self.pub.send(publish(channel.head, write_reply(arrived)))
        else:
            self._drop(channel.name)

    def _new_channel(self, key: Any, value: list[bytes]) -> Channel:
        name = value[-2].decode(errors="replace")
        channel = Channel(
            name,
            RedisWire(name),
            publish_head(value[-2] + REPLY.encode()),
            self._count(name + REPLY),
            self._subscriptions[value[1]] if self._count(name) > 1 else None,
        )
        if len(self._channels) < _MOST_REMEMBERED:
            self._channels[key] = channel
        return channel

    def _answer(self, request: Message, channel: Channel) -> Answer:
        """Answer on the caller's own channel, if it names one.

        Its name must be that of the request's own id: a gateway may pass on the
        metadata of a request that it got.
        """
        headers, id_ = request.headers or {}, request.id
        name = reply_name_of(id_) if headers.get(REPLY_HEADER) == id_ else None
        if name is None:
            return Answer(self.answers, channel.head, channel.echoes)
        echoes = self._count(name.decode())
        return Answer(self.answers, publish_head(name), echoes, is_own=True)

    def _count(self, name: str) -> int:
        """Count the copies that Redis makes for us of what is published there."""
        patterns = [each.decode() for each in self._subscriptions]
        if not self.options.wildcards:
            return patterns.count(name)
        return sum(REDIS_GLOB.matches(pattern, name) for pattern in patterns)

    def _drop(self, channel: str) -> None:
        """Count what is no message, or an answer that a wildcard brought."""
        self.dropped += 1
        logger.debug("Dropped what came from %s.", shown(channel))


_UNGLOBBED = 3
