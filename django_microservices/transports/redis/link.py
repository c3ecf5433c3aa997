"""The client's half of Redis' pub/sub."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost
from ...wire.codecs import encode
from ...wire.headers import REPLY_HEADER, headers_of, metadata_of
from ...wire.messages import UNSET, Message, Reply
from ...wire.packets import write_message
from ..stream import Drained
from .halves import Caller
from .intake import REPLY
from .protocol import (
    ReplyError,
    check,
    command,
    name_of,
    publish,
    publish_head,
    target_of,
)
from .reply_names import reply_name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Receive
    from .transport import RedisTransport

IDLE = 10.0
"""Seconds after which a reply channel that nobody needs is left: subscribing again for
each call would cost a round trip more."""

MOST_IDLE = 1024
_MOST_REMEMBERED = 4096


class ReplyChannel:
    """Where the answers to one pattern come: all its callers share it.

    ``waiting`` has the requests that may go out once Redis has confirmed it; ``None``
    says that it has.
    """

    __slots__ = ("callers", "is_idle", "name", "route", "waiting")

    def __init__(self, route: str) -> None:
        self.route = route
        self.name = name_of(route + REPLY)
        self.callers = 0
        self.is_idle = False
        self.waiting: dict[Any, bytes] | None = {}


class Link(Caller):
    """Asks on one connection, is answered on another.

    A stream's answers are awaited on a channel of its own as well, so that a server of
    ours is told when nobody listens to it any more; Nest's uses the pattern's.
    """

    def __init__(
        self,
        options: "RedisTransport",
        receive: "Receive",
    ) -> None:
        super().__init__(options.address, receive)
        self.options = options
        self._heads: dict[str, bytes] = {}
        self._channels: dict[str, ReplyChannel] = {}
        self._asked: dict[Any, ReplyChannel] = {}
        self._own_channels: dict[Any, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None

    # --- life ---

    async def open(self) -> None:
        """Connect."""
        await self.lines.open()
        self._timer = self.lines.loop.call_later(IDLE, self._leave_idle)

    async def close(self) -> None:
        """Close once Redis has the events that were sent."""
        if self._timer is not None:
            self._timer.cancel()
        await self.lines.close()

    # --- out ---

    def publish(self, message: Message) -> "Awaitable[None] | None":
        """Publish a message; an awaitable says that Redis does not keep up.

        Raises :class:`ConnectionLost`, :class:`MessageTooLarge`, and ``ValueError`` for
        a pattern that can name no channel.
        """
        pub = self.pub
        if pub.lost or self.sub.lost:
            raise ConnectionLost(pub.reason or self.sub.reason or "")
        pattern, id_, data = message.pattern, message.id, message.data
        route = pattern.route
        own = reply_name_of(id_) if message.stream else None
        metadata = metadata_of(message) if own is None else _metadata_of_stream(message)
        text = write_message(
            pattern.json, None if data is UNSET else data, id_, metadata
        )
        if len(text) > self.options.max_frame_size:
            check(text, self.options.max_frame_size)
        text = publish(self._heads.get(route) or self._new_head(route), text)
        if id_ is UNSET:
            pub.send(text)
        else:
            self._ask(route, id_, text, own)
        return Drained(pub.drained) if pub.paused else None

    def _new_head(self, route: str) -> bytes:
        if len(self._heads) >= _MOST_REMEMBERED:
            self._heads.clear()
        head = self._heads[route] = publish_head(target_of(route))
        return head

    def _ask(self, route: str, id_: Any, text: bytes, own: bytes | None) -> None:
        """Publish a request once its answers would be heard."""
        channel = self._channels.get(route) or self._subscribe(route)
        channel.callers += 1
        channel.is_idle = False
        self._asked[id_] = channel
        if own is not None:
            self._own_channels[id_] = own
            self.sub.send(command("SUBSCRIBE", own), partial(self._owned, id_, text))
        elif channel.waiting is None:
            self.pub.send(text, partial(self._published, id_))
        else:
            channel.waiting[id_] = text

    def _owned(self, id_: Any, text: bytes, answer: Any) -> None:
        """Publish a stream's request: Redis has confirmed both of its channels."""
        if isinstance(answer, ReplyError):
            self._refuse(id_, answer)
        elif id_ in self._own_channels:
            self.pub.send(text, partial(self._published, id_))

    def _published(self, id_: Any, listeners: Any) -> None:
        """Tell the caller at once where nobody listens."""
        if listeners == 0 and self.pub.counts_all:
            self._receive(Reply(id_, missing=True))
        elif isinstance(listeners, ReplyError):
            self._refuse(id_, listeners)

    def _refuse(self, id_: Any, error: ReplyError) -> None:
        text = f"Redis refuses: {error}"
        self._receive(Reply(id_, None, encode({"status": "error", "message": text})))

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Leave the reply channel: later where it was of use, else at once.

        Redis then tells the server that nobody listens, which ends an endless stream.
        """
        channel = self._asked.pop(id_, None)
        if channel is None:
            return
        if (own := self._own_channels.pop(id_, None)) is not None:
            self.sub.send(command("UNSUBSCRIBE", own))
        channel.callers -= 1
        if channel.waiting is not None:
            channel.waiting.pop(id_, None)
        if not channel.callers and (not answered or len(self._channels) > MOST_IDLE):
            self._unsubscribe(channel)

    # --- reply channels ---

    def _subscribe(self, route: str) -> ReplyChannel:
        channel = self._channels[route] = ReplyChannel(route)
        text = command("SUBSCRIBE", channel.name)
        self.sub.send(text, partial(self._subscribed, channel))
        return channel

    def _subscribed(self, channel: ReplyChannel, answer: Any) -> None:
        """Publish what waited for this; it is refused where Redis refuses."""
        waiting, channel.waiting = channel.waiting or {}, None
        if isinstance(answer, ReplyError):
            self._unsubscribe(channel)
            for id_ in waiting:
                self._refuse(id_, answer)
            return
        for id_, text in waiting.items():
            self.pub.send(text, partial(self._published, id_))

    def _unsubscribe(self, channel: ReplyChannel) -> None:
        if self._channels.get(channel.route) is channel:
            del self._channels[channel.route]
            self.sub.send(command("UNSUBSCRIBE", channel.name))

    def _leave_idle(self) -> None:
        """Leave what nobody has needed since the last look."""
        self._timer = self.lines.loop.call_later(IDLE, self._leave_idle)
        for channel in [one for one in self._channels.values() if not one.callers]:
            if channel.is_idle:
                self._unsubscribe(channel)
            channel.is_idle = True


def _metadata_of_stream(message: Message) -> bytes:
    """Name its own channel, too: the request's id says which."""
    return encode((headers_of(message) or {}) | {REPLY_HEADER: message.id})
