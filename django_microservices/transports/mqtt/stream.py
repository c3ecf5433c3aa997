"""One socket: bytes out in batches, and a certain end."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost
from ..tcp.sockets import is_tcp, set_options

if TYPE_CHECKING:
    from collections.abc import Generator

# As on TCP: a full batch goes out before the tick ends, so that the broker begins.
EAGER = 32
EAGER_BYTES = 32 * 1024
HIGH_WATER = 64 * 1024
LINGER = 1.0
TURNS = 4
"""Of the loop, in which most answers are written: they acknowledge what was read."""


class Drained:
    """Waits until the broker has read; unlike a coroutine it may be let go of."""

    __slots__ = ("_stream",)

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream

    def __await__(self) -> "Generator[Any, None, None]":
        return self._stream.drained().__await__()


class Stream(asyncio.Protocol):
    """What knows nothing of MQTT.

    ``closed`` ends with the reason for the end. ``lost`` says that nothing can be
    written any more, ``paused`` that the broker is behind in reading, ``deaf`` that we
    do not read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.transport: Any = None
        self.reason: str | None = None
        self.lost = False
        self.paused = False
        self.deaf = False
        self.heard = 0.0
        self._out: list[bytes] = []
        self._out_size = 0
        self._drained: asyncio.Future[None] | None = None
        self._owed = 0
        self._acknowledge: Callable[[], object] = _nothing

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.heard = self.loop.time()
        sock = transport.get_extra_info("socket")
        set_options(sock, no_delay=True)
        self._acknowledge = _acknowledging(sock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reason."""
        self.explain(str(exc) if exc else "the broker closed the connection")
        self.stop_writing()
        self.closed.set_result(ConnectionLost(self.reason))

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self.explain(reason)
        self.stop_writing()
        if self.transport is not None:
            self.transport.abort()

    async def end(self) -> None:
        """Close, and return when that is done; what was written has a moment."""
        self.explain("the connection was closed")
        self.flush()
        self.stop_writing()
        self.transport.close()
        await asyncio.wait((self.closed,), timeout=LINGER)
        self.transport.abort()
        await asyncio.wait((self.closed,), timeout=LINGER)

    # --- in ---

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - read by who speaks
        """Note that the broker lives, and that it waits for an acknowledgement."""
        self.heard = self.loop.time()
        if not self._owed:
            self._owed = TURNS
            self.loop.call_soon(self._acknowledge_soon)

    def _acknowledge_soon(self) -> None:
        """Acknowledge what was read, unless what we write does so meanwhile."""
        if self.lost or not self._owed:
            return
        self._owed -= 1
        if self._owed:
            self.loop.call_soon(self._acknowledge_soon)
        else:
            self._acknowledge()

    def pause_reading(self) -> None:
        """Let TCP hold the broker back."""
        self.deaf = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.deaf = False
        self.heard = self.loop.time()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- out ---

    def write(self, data: bytes) -> None:
        """Send something, together with what else this tick writes."""
        if self.lost:
            return
        out = self._out
        if not out:
            self.loop.call_soon(self.flush)
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
        self._out_size = self._owed = 0
        self.transport.write(data)

    def stop_writing(self) -> None:
        """Write nothing more: the socket takes nothing."""
        self.lost = True
        self._out.clear()
        self._out_size = 0
        self.resume_writing()

    def pause_writing(self) -> None:
        """The broker reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The broker has caught up, or is gone."""
        self.paused = False
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        """Return when the broker has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)
        if self.lost:
            raise ConnectionLost(self.reason or "the connection ended")


def _nothing() -> None:
    """Do what a system can that has no such option."""


def _acknowledging(sock: Any) -> Callable[[], object]:
    """Return what has the kernel acknowledge at once what was read.

    mosquitto leaves Nagle's algorithm on: of two messages in a row the second one waits
    for the acknowledgement of the first, which the kernel delays by 40 ms. The option
    holds for a moment only, so that it is set again with each read.
    """
    if not (is_tcp(sock) and hasattr(socket, "TCP_QUICKACK")):
        return _nothing
    return partial(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
