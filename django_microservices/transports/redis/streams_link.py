"""The client's half of Redis' streams."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost, NotConnected
from ...wire.messages import Message
from .entries import write_fields
from .halves import Caller
from .protocol import ReplyError, command, target_of
from .refusals import refusal
from .reply_names import new_reply_name

if TYPE_CHECKING:
    from ..base import Receive
    from .streams import RedisStreamsTransport

_MOST_REMEMBERED = 4096


class StreamsLink(Caller):
    """Adds entries on one connection, is answered on another.

    Answers come on a channel of this link's own; each stream of answers has another
    one, so that the server is told when nobody listens to it any more.
    """

    def __init__(self, options: "RedisStreamsTransport", receive: "Receive") -> None:
        super().__init__(options.address, receive)
        self.options = options
        self._channel = new_reply_name(options.key_prefix)
        self._own_channels: dict[Any, bytes] = {}
        self._names: dict[str, bytes] = {}
        most = options.max_length
        self._limit = () if most is None else ("MAXLEN", "~", most)

    # --- life ---

    async def open(self) -> None:
        """Connect, and listen to the answers."""
        await self.lines.open()
        try:
            await self.sub.ask("SUBSCRIBE", self._channel)
        except ReplyError as error:
            raise refusal(self.lines.place, error) from None
        except ConnectionLost as error:
            message = f"{self.lines.place}: {error}"
            raise NotConnected(message) from None

    async def close(self) -> None:
        """Close."""
        await self.lines.close()

    # --- out ---

    def publish(self, message: Message) -> asyncio.Future[None]:
        """Add an entry; the future ends when Redis has it.

        Raises :class:`ConnectionLost`, :class:`MessageTooLarge`, and ``ValueError`` for
        a pattern that can name no stream.
        """
        if self.lines.are_lost:
            raise ConnectionLost(self.pub.reason or self.sub.reason or "")
        name = self._name(message.pattern.route)
        added: asyncio.Future[None] = self.lines.loop.create_future()
        channel = new_reply_name(self.options.key_prefix) if message.stream else None
        fields = write_fields(
            message, channel or self._channel, self.options.max_frame_size
        )
        text = command("XADD", name, *self._limit, "*", *fields)
        if channel is None:
            self.pub.send(text, partial(self._added, added))
        else:
            self._own_channels[message.id] = channel
            then = partial(self._subscribed, text, added)
            self.sub.send(command("SUBSCRIBE", channel), then)
        return added

    def _name(self, route: str) -> bytes:
        name = self._names.get(route)
        if name is None:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            name = self.options.key_prefix.encode() + target_of(route)
            self._names[route] = name
        return name

    def _subscribed(
        self, text: bytes, added: asyncio.Future[None], answer: Any
    ) -> None:
        """Add a request whose answers would be heard now."""
        if isinstance(answer, Exception):
            self._added(added, answer)
        else:
            self.pub.send(text, partial(self._added, added))

    def _added(self, added: asyncio.Future[None], answer: Any) -> None:
        if added.done():
            return
        if isinstance(answer, ReplyError):
            added.set_exception(self._refusal(answer))
        elif isinstance(answer, Exception):
            added.set_exception(answer)
        else:
            added.set_result(None)

    def _refusal(self, answer: ReplyError) -> Exception:
        """Make the error of it; a server that became a replica is left."""
        error = refusal(self.lines.place, answer)
        if not str(answer).startswith("READONLY"):
            return error
        self.pub.abort(str(error))
        return ConnectionLost(str(error))

    def forget(self, id_: Any, *, answered: bool) -> None:  # noqa: ARG002 - alike
        """Leave the channel of a stream of answers."""
        channel = self._own_channels.pop(id_, None)
        if channel is not None:
            self.sub.send(command("UNSUBSCRIBE", channel))
