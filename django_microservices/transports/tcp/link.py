"""The client's half of the TCP wire."""

import asyncio
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
)
from ...wire.codecs import TooMuch, encode, is_too_deep
from ...wire.headers import metadata_of, own_headers
from ...wire.messages import UNSET, Message, Reply, new_id
from ...wire.packets import find_id, write_reply
from ...wire.status import Status
from ...wire.unreadable import TOO_DEEP, TOO_LARGE, TOO_LARGE_ERROR
from ..stream import Drained
from .connection import LINGER, Connection
from .extension import BYE, CANCEL, HELLO, PING
from .output import CHECK
from .protocol import JsonSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Changed, Receive
    from .transport import TCPTransport

SILENCE = 5.0
PATIENCE = 2.0
"""Seconds for the answer to a ping, twice: a loop that was held up itself reads what
has come in between."""


class Link(Connection):
    """One connection to a server."""

    __slots__ = (
        "_changed",
        "_receive",
        "_timer",
        "_unanswered",
        "closed",
        "ignored",
        "is_ours",
    )

    def __init__(
        self,
        options: "TCPTransport",
        loop: asyncio.AbstractEventLoop,
        receive: "Receive",
        changed: "Changed",
    ) -> None:
        super().__init__(options, loop)
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.is_ours = False
        self.ignored = 0
        self._receive = receive
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered = 0
        if isinstance(self.socket, JsonSocket):
            self.socket.stand_in = self._stand_in

    @property
    def driver(self) -> Any:
        """The connection's asyncio transport."""
        return self.transport

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch over the server."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the client, with the reason."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed.done():
            reason = self.reason or "the server closed the connection"
            self.closed.set_result(ConnectionLost(reason))

    async def close(self) -> None:
        """Close, and return when that is done."""
        self.end()
        await asyncio.wait((self.closed,), timeout=LINGER)
        self.transport.abort()
        await asyncio.wait((self.closed,))

    # --- out ---

    def publish(self, message: Message) -> "Awaitable[None] | None":
        """Write a message; an awaitable says that the server does not keep up.

        Like Nest's client we send a request's pattern as given and an event's as the
        text of its route (A.2). Raises :class:`MessageTooLarge`, and
        :class:`NotConnected` where nothing can be sent any more.
        """
        output = self.output
        if output.lost:
            raise NotConnected(self.reason or "the connection ended")
        pattern = message.pattern
        data = message.data
        text = self.options.write_packet(
            pattern.route_json if message.id is UNSET else pattern.json,
            None if data is UNSET else data,
            message.id,
            metadata_of(message),
        )
        if len(text) > output.max_size:
            output.check_size(text)
        output.write(text)
        return Drained(output.drained) if output.paused else None

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Tell a server of ours that nobody awaits the answer any more."""
        if answered or not self.is_ours or self.lost:
            return
        self.output.write(self.options.write_packet(_CANCEL, encode(id_), UNSET, None))

    def overflow(self) -> None:
        """Leave a server only if it reads nothing of what we have for it.

        It may be our own burst that is over the cap, and callers wait for answers.
        """
        self.output.patience = self.options.unread_timeout

    # --- in ---

    def texts_received(self, texts: list[bytes]) -> None:
        """Hand replies to the client; one that is no JSON ends the connection."""
        try:
            for text in texts:
                self._reply_received(text, self._read(text))
        except InvalidMessage as error:
            message = f"a reply that cannot be read: {error}"
            raise InvalidMessage(message) from None

    def _read(self, text: bytes) -> Reply | None:
        """Read a reply; what is too much for the decoder fails its own call alone."""
        try:
            return self.options.read_reply(text)
        except TooMuch:
            id_ = find_id(text)
            if id_ is UNSET:
                raise
            return Reply(id_, text)  # whose reader meets the same error

    def _reply_received(self, text: bytes, reply: Reply | None) -> None:
        if reply is None:
            self.ignored += 1
        elif is_too_deep(text):
            self._receive(Reply(reply.id, TOO_DEEP))
        elif reply.id in _CONTROL:
            self._control(reply)
        else:
            self._receive(reply)

    def _stand_in(self, ends: bytes) -> bytes | None:
        """Return what fails the call whose answer was too large.

        Where it is not known which that was, all fail, and the connection ends.
        """
        id_ = UNSET if self.options.deserializer else find_id(ends)
        if id_ is UNSET:
            self.closed.set_result(MessageTooLarge(TOO_LARGE))
            return None
        return write_reply(Reply(id_, None, TOO_LARGE_ERROR))

    def _control(self, reply: Reply) -> None:
        if reply.id == HELLO.id:
            self.is_ours = True
        else:
            self._changed(Status.DRAINING)

    # --- a half-open peer ---

    def _watch(self) -> None:
        """See that the server lives, every few seconds.

        Its host may be gone; or it hangs, and its kernel acknowledges for it all the
        same, so that a server of ours is asked (A.10). While we do not read ourselves,
        silence says nothing.
        """
        self._timer = None
        self.output.check_host()
        if not self.lost:
            self._timer = self.loop.call_later(self._check_peer(), self._watch)

    def _check_peer(self) -> float:
        """Ask a silent server; return the seconds until the next look."""
        silent = self.loop.time() - self.heard
        if not self.is_ours or self.deaf:
            silent = 0.0
        if silent < SILENCE:
            self._unanswered = 0
            return min(CHECK, SILENCE - silent)
        if not self._unanswered:
            self._ping()
        elif self._unanswered > 1:
            self.abort(f"the server was silent for {silent:.0f} s")
        self._unanswered += 1
        return PATIENCE

    def _ping(self) -> None:
        id_ = f"{PING}-{new_id()}"
        self.output.write(self.options.write_packet(_PING, b"0", id_, _PING_METADATA))


_CONTROL = (HELLO.id, BYE.id)
_CANCEL = encode(CANCEL)
_PING = encode(PING)
_PING_METADATA = encode(own_headers(None))
