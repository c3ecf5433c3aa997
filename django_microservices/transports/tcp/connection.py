"""One TCP connection: frames in, frames out, limits on both ways."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost, InvalidMessage, MessageTooLarge
from .protocol import units
from .sockets import address_text, has_vanished, set_options

if TYPE_CHECKING:
    from collections.abc import Generator

    from .transport import TCPTransport

# Output is handed over before the tick ends once it has this many texts, so that the
# peer works on the first part while we make the rest. uvloop sends at once what is over
# its high water, and otherwise when the tick ends.
EAGER = 32
EAGER_BYTES = 32 * 1024
HIGH_WATER = 256
UNREAD = 16 * 1024 * 1024
"""Bytes that a peer may leave unread."""
# The end of the handshake, still unsent when TLS is ready, counts: were it over the
# high water, reading would stop at once, and nothing would ever send it.
TLS_HIGH_WATER = 64 * 1024

AT_ONCE = 512
"""Frames that one tick handles at most, so that no peer holds the loop."""
LINGER = 1.0
CHECK = 3.0


class Drained:
    """Waits until the peer has read; unlike a coroutine it may be let go unawaited."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def __await__(self) -> "Generator[Any, None, None]":
        return self._connection.drained().__await__()


class Connection(asyncio.Protocol):
    """What both halves share. Subclasses handle :meth:`texts_received`.

    ``lost`` says that nothing can be written any more, ``deaf`` that we do not read,
    ``paused`` that the peer is behind in reading, ``clogged`` that it is so far behind
    that nothing more is read from it, ``reason`` why the connection ended.
    """

    __slots__ = (
        "_began",
        "_drained",
        "_frame_timer",
        "_out",
        "_out_size",
        "clogged",
        "deaf",
        "heard",
        "loop",
        "lost",
        "max_size",
        "name",
        "options",
        "paused",
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
        self.max_size = options.max_frame_size
        self.socket = options.new_socket()
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.name: Any = None
        self.heard = 0.0
        self.lost = False
        self.deaf = False
        self.paused = False
        self.clogged = False
        self.peer_ended = False
        self.reason: str | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._drained: asyncio.Future[None] | None = None
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
        """Wake who waits for the peer to read."""
        if exc is not None and self.reason is None:
            self.reason = str(exc)
        self.stop_writing()
        if self._frame_timer is not None:
            self._frame_timer.cancel()
        self.resume_writing()

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
        self.stop_writing()
        self.transport.abort()

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def end(self) -> None:
        """Close; what was written has a moment to go out, TLS one to say goodbye."""
        self.flush()
        self.stop_writing()
        if self.transport.is_closing():
            return
        self.transport.close()
        if self.transport.get_write_buffer_size() or not self.transport.can_write_eof():
            self.loop.call_later(LINGER, self.transport.abort)

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

    def write(self, text: bytes) -> None:
        """Send one text, together with what else this tick writes."""
        if self.lost:
            return
        out = self._out
        if not out:
            self.loop.call_soon(self.flush)
        data = self.socket.write(text)
        out.append(data)
        self._out_size += len(data)
        if len(out) >= EAGER or self._out_size >= EAGER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what was written to the socket."""
        if not self._out:
            return
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self.transport.write(data)
        if self.paused:
            self._check_unread()

    def _check_unread(self) -> None:
        """Cut a peer that reads nothing; read nothing from it well before that.

        Not earlier: Nest's client reads nothing while its own requests back up, and
        two that wait for each other would wait for ever.
        """
        limit = self.options.max_send_buffer_size
        unread = self.transport.get_write_buffer_size()
        if limit and unread > limit:
            self.abort(f"the peer left more than {limit} bytes unread")
        elif not self.clogged and unread > (limit or UNREAD) // 2:
            self.clog()

    def clog(self) -> None:
        """The peer is half the allowed bytes behind."""
        self.clogged = True

    def stop_writing(self) -> None:
        """Write nothing more: the socket takes nothing."""
        self.lost = True
        self._out.clear()
        self._out_size = 0

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The peer has caught up, or is gone."""
        self.paused = self.clogged = False
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        """Return when the peer has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            done, _ = await asyncio.wait((self._drained,), timeout=CHECK)
            if not done:
                self.check_host()
        if self.lost:
            raise ConnectionLost(self.reason or "the connection ended")

    def check_host(self) -> None:
        """End the connection with a host that acknowledges nothing any more."""
        if has_vanished(self.transport.get_extra_info("socket")):
            self.abort("the peer's host has vanished")

    def check_size(self, text: bytes) -> None:
        """Raise :class:`MessageTooLarge` for a text that the peer would refuse.

        Called only for texts that have too many bytes: the wire counts UTF-16 units.
        """
        length = units(text)
        if length > self.max_size:
            message = (
                f"A message of {length} is over max_frame_size ({self.max_size}): "
                "raise it on both ends, or send less."
            )
            raise MessageTooLarge(message)
