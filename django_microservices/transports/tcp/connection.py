"""One TCP connection: frames in, frames out, limits on both ways."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost, MessageTooLarge

if TYPE_CHECKING:
    from .transport import TCPTransport

logger = logging.getLogger(__name__)

# Output is handed over before the tick ends once it has this many texts, so that the
# peer works on the first part while we make the rest. uvloop sends at once what is over
# its high water, and otherwise when the tick ends.
EAGER = 32
EAGER_BYTES = 32 * 1024
HIGH_WATER = 256
LINGER = 1.0


class Connection(asyncio.Protocol):
    """What both halves share. Subclasses handle :meth:`frame_received`."""

    __slots__ = (
        "_drained",
        "_frame_timer",
        "_out",
        "_out_size",
        "heard",
        "lost",
        "loop",
        "max_size",
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
        self.heard = 0.0
        self.lost = False
        self.paused = False
        self.peer_ended = False
        self.reason: str | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._drained: asyncio.Future[None] | None = None
        self._frame_timer: asyncio.TimerHandle | None = None

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.heard = self.loop.time()
        set_options(transport.get_extra_info("socket"), no_delay=self.options.no_delay)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who waits for the peer to read."""
        self.lost = True
        if exc is not None and self.reason is None:
            self.reason = str(exc)
        self._stop_frame_timer()
        self._out.clear()
        self._out_size = 0
        self.resume_writing()

    def eof_received(self) -> bool:
        """Keep the way out open: what was asked may still be answered."""
        self.peer_ended = True
        return False

    def refuse(self, reason: str) -> None:
        """End the connection because of what the peer sent."""
        if self.reason is None:
            self.reason = reason
            logger.warning("Closed the connection with %s: %s.", self.peer, reason)
        self.flush()
        self.transport.close()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if self.reason is None:
            self.reason = reason
        self.transport.abort()

    @property
    def peer(self) -> str:
        """The peer's address, for people."""
        name = self.transport.get_extra_info("peername")
        return address_text(name)

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Cut what was read into frames."""
        self.heard = self.loop.time()
        if self.reason is not None:
            return
        framing = self.socket
        for text in framing.receive(data):
            self.frame_received(text)
        if framing.error is not None:
            self.refuse(framing.error)
        elif framing.partial is not (self._frame_timer is not None):
            self._watch_frame()

    def frame_received(self, text: bytes) -> None:
        """Handle one complete text."""
        raise NotImplementedError

    def _watch_frame(self) -> None:
        seconds = self.options.incomplete_message_timeout
        self._stop_frame_timer()
        if self.socket.partial and seconds:
            self._frame_timer = self.loop.call_later(
                seconds, self.abort, f"a frame took more than {seconds:g} s"
            )

    def _stop_frame_timer(self) -> None:
        if self._frame_timer is not None:
            self._frame_timer.cancel()
            self._frame_timer = None

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
        limit = self.options.max_send_buffer_size
        if limit and self.transport.get_write_buffer_size() > limit:
            self.abort(f"the peer left more than {limit} bytes unread")

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The peer has caught up, or is gone."""
        self.paused = False
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        """Return when the peer has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)
        if self.lost:
            raise ConnectionLost(self.reason or "the connection ended")

    def too_large(self, text: bytes) -> MessageTooLarge:
        """Return the error for a text that the peer would refuse."""
        return MessageTooLarge(
            f"{len(text)} bytes are over max_frame_size "
            f"({self.options.max_frame_size}): raise it on both ends, or send less."
        )


def address_text(name: Any) -> str:
    """Write a socket's address as people do."""
    if isinstance(name, tuple) and len(name) >= 2:  # noqa: PLR2004 - host and port
        host = f"[{name[0]}]" if ":" in str(name[0]) else name[0]
        return f"{host}:{name[1]}"
    return str(name or "?")


def set_options(sock: Any, *, no_delay: bool) -> None:
    """No delay, and keep-alive so that a vanished host is seen within ten seconds."""
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):  # not every option exists on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_KEEP_ALIVE = (
    ("TCP_KEEPIDLE", 3),
    ("TCP_KEEPINTVL", 3),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", 9000),
)
