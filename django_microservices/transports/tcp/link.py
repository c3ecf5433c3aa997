"""The client's half of the TCP wire."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost, InvalidMessage
from ...wire.codecs import encode, is_too_deep, write_message
from ...wire.messages import UNSET, Message, Reply, new_id
from ...wire.status import Status
from .connection import Connection
from .intake import BYE, CANCEL, HELLO, PEER_HEADER, PING, TIMEOUT_HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Changed, Receive
    from .transport import TCPTransport

logger = logging.getLogger(__name__)

SILENCE = 5.0
PATIENCE = 4.0
_MOST_METADATA = 1024


class Link(Connection):
    """One connection to a server."""

    __slots__ = (
        "_changed",
        "_metadata",
        "_ping_timer",
        "_pinged",
        "_receive",
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
        self._metadata: dict[float | None, bytes] = {}
        self._ping_timer: asyncio.TimerHandle | None = None
        self._pinged = False

    @property
    def driver(self) -> Any:
        """The connection's asyncio transport."""
        return self.transport

    # --- out ---

    def publish(self, message: Message) -> "Awaitable[None] | None":
        """Write a message; an awaitable says that the server does not keep up.

        Like Nest's client we send a request's pattern as given and an event's as the
        text of its route (A.2). Raises :class:`MessageTooLarge`, `ConnectionLost`.
        """
        if self.lost:
            raise ConnectionLost(self.reason or "the connection ended")
        pattern = message.pattern
        data = message.data
        text = self.options.write_packet(
            pattern.route_json if message.id is UNSET else pattern.json,
            None if data is UNSET else data,
            message.id,
            self._metadata_of(message),
        )
        if len(text) > self.max_size:
            raise self.too_large(text)
        self.write(text)
        return self.drained() if self.paused else None

    def _metadata_of(self, message: Message) -> bytes | None:
        """Return the request's metadata: few kinds recur, so their texts are kept."""
        if message.headers is None and message.id is UNSET:
            return None
        timeout = message.timeout
        if message.headers is not None:
            return encode(message.headers | self._own_headers(timeout))
        try:
            return self._metadata[timeout]
        except KeyError:
            if len(self._metadata) > _MOST_METADATA:
                self._metadata.clear()
            text = self._metadata[timeout] = encode(self._own_headers(timeout))
            return text

    @staticmethod
    def _own_headers(timeout: float | None) -> dict[str, str]:
        if timeout is None:
            return {PEER_HEADER: "1"}
        return {PEER_HEADER: "1", TIMEOUT_HEADER: str(max(1, int(timeout * 1000)))}

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Tell a server of ours that nobody awaits the answer any more."""
        if answered or not self.is_ours or self.lost:
            return
        self.write(write_message(_CANCEL, encode(id_), UNSET, None))

    # --- in ---

    def frame_received(self, text: bytes) -> None:
        """Hand a reply to the client."""
        try:
            reply = self.options.read_reply(text)
        except InvalidMessage as error:
            self.refuse(f"a reply that cannot be read: {error}")
            return
        if reply is None or (reply.data is not None and is_too_deep(text)):
            self.ignored += 1
        elif reply.id in _CONTROL:
            self._control(reply)
        else:
            self._receive(reply)

    def _control(self, reply: Reply) -> None:
        if reply.id == HELLO.id:
            self.is_ours = True
            self._watch_silence()
        elif reply.id == BYE.id:
            self._changed(Status.DRAINING)

    # --- a half-open peer: the kernel may still acknowledge for a process that hangs ---

    def _watch_silence(self) -> None:
        silent = self.loop.time() - self.heard
        if self.lost:
            return
        if silent < SILENCE:
            self._pinged = False
            self._call_later(SILENCE - silent)
        elif not self._pinged:
            self._pinged = True
            id_ = f"{PING}-{new_id()}"
            self.write(write_message(_PING, b"0", id_, b'{"dm-peer":"1"}'))
            self._call_later(PATIENCE)
        else:
            self.abort(f"the server was silent for {silent:.0f} s")

    def _call_later(self, seconds: float) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._ping_timer = self.loop.call_later(seconds, self._watch_silence)

    # --- the end ---

    def pause_reading(self) -> None:
        """Let TCP hold the server back."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the client, with the reason."""
        super().connection_lost(exc)
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        if not self.closed.done():
            reason = self.reason or "the server closed the connection"
            self.closed.set_result(ConnectionLost(reason))


_CONTROL = (HELLO.id, BYE.id)
_CANCEL = encode(CANCEL)
_PING = encode(PING)
