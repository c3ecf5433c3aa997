"""One TCP connection: what both halves do with its life, and with what they read."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import InvalidMessage
from ..sockets import address_text, set_options
from ..stream import HIGH_WATER, TLS_HIGH_WATER
from .output import Output

if TYPE_CHECKING:
    from .transport import TCPTransport

AT_ONCE = 512
"""Frames that one tick handles at most, so that no peer holds the loop."""
LINGER = 1.0


class Connection(asyncio.Protocol):
    """What both halves share. Subclasses handle :meth:`texts_received`.

    ``deaf`` says that we do not read, ``heard`` when we last did, ``peer_ended`` that
    nothing more will come, ``reason`` why the connection ended.
    """

    __slots__ = (
        "_began",
        "_frame_timer",
        "deaf",
        "heard",
        "loop",
        "name",
        "options",
        "output",
        "peer_ended",
        "reason",
        "socket",
        "transport",
    )

    def __init__(
        self, options: "TCPTransport", loop: asyncio.AbstractEventLoop
    ) -> None:
        self.options = options
        self.loop = loop
        self.socket = options.new_socket()
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.name: Any = None
        self.heard = 0.0
        self.deaf = False
        self.peer_ended = False
        self.reason: str | None = None
        self.output = Output(self)
        self._began = 0.0
        self._frame_timer: asyncio.TimerHandle | None = None

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        self.transport = cast("asyncio.Transport", transport)
        plain = self.options.tls_options is None
        high = HIGH_WATER if plain else TLS_HIGH_WATER
        self.transport.set_write_buffer_limits(high=high)
        self.name = transport.get_extra_info("peername")
        self.heard = self.loop.time()
        set_options(transport.get_extra_info("socket"), no_delay=self.options.no_delay)

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep the reason, and wake who waits for the peer to read."""
        if exc is not None and self.reason is None:
            self.reason = str(exc)
        if self._frame_timer is not None:
            self._frame_timer.cancel()
        self.output.end()

    def eof_received(self) -> bool:
        """The peer sends nothing more: close once what is written has gone out."""
        self.peer_ended = True
        self._began = 0.0
        self.end()
        return False

    def refuse(self, reason: str) -> None:
        """End the connection because of what the peer sent."""
        self.explain(reason)
        self.end()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self.explain(reason)
        self.output.stop()
        self.transport.abort()

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def end(self) -> None:
        """Close; what was written has a moment to go out, TLS one to say goodbye."""
        self.output.flush()
        self.output.stop()
        if self.transport.is_closing():
            return
        self.transport.close()
        if self.output.unread or not self.transport.can_write_eof():
            self.loop.call_later(LINGER, self.transport.abort)

    @property
    def lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self.output.lost

    @property
    def peer(self) -> str:
        """The peer's address, for people."""
        return address_text(self.name)

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Cut what was read into frames."""
        self.heard = self.loop.time()
        if self.reason is not None:
            return
        framing = self.socket
        texts = framing.receive(data)
        try:
            self.texts_received(texts)
        except InvalidMessage as error:
            self.refuse(str(error))
            return
        if framing.error is not None:
            self.refuse(framing.error)
        elif not framing.partial:
            self._began = 0.0
        elif texts or not self._began:
            self._watch_frame()

    def texts_received(self, texts: list[bytes]) -> None:
        """Handle what one read brought; :class:`InvalidMessage` ends the connection."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Let TCP hold the peer back."""
        self.deaf = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.deaf = False
        self.heard = self.loop.time()
        if self._began:
            self._began = self.heard
        if not (self.peer_ended or self.transport.is_closing()):
            self.transport.resume_reading()

    # A frame's time counts from its first byte, and no later byte resets it. The timer
    # is set again only when it fires: a busy peer begins a frame with every read.

    def _watch_frame(self) -> None:
        self._began = self.heard
        seconds = self.options.incomplete_message_timeout
        if self._frame_timer is None and seconds:
            self._frame_timer = self.loop.call_later(seconds, self._check_frame)

    def _check_frame(self) -> None:
        self._frame_timer = None
        if not self._began:
            return
        seconds = self.options.incomplete_message_timeout
        left = seconds if self.deaf else self._began + seconds - self.loop.time()
        if left > 0:
            self._frame_timer = self.loop.call_later(left, self._check_frame)
        else:
            self.abort(f"a frame took more than {seconds:g} s")

    # --- out ---

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.output.pause_writing()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.output.resume_writing()

    def overflow(self) -> None:
        """The peer leaves more than the cap unread."""
        limit = self.options.max_send_buffer_size
        self.abort(f"the peer left more than {limit} bytes unread")

    def clog(self) -> None:
        """The peer is so far behind that nothing more is read from it."""
        self.output.clogged = True
