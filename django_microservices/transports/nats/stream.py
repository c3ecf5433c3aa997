"""One socket: what a tick says goes out together, and the peer's reading is heeded."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Generator

# Output is handed over before the tick ends once it has this many packets, so that the
# server works on the first part while we make the rest.
EAGER = 32
EAGER_BYTES = 32 * 1024
HIGH_WATER = 256
TLS_HIGH_WATER = 64 * 1024  # the end of the handshake, still unsent, counts
UNREAD = 16 * 1024 * 1024
"""Bytes that the server may leave unread."""


class Drained:
    """Waits until the server has read; unlike a coroutine it may be let go."""

    __slots__ = ("_stream",)

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream

    def __await__(self) -> "Generator[Any, None, None]":
        return self._stream.drained().__await__()


class Stream(asyncio.Protocol):
    """The bytes of a connection, in both directions.

    ``closed`` ends when the socket is closed; ``reason`` says why. ``lost`` says that
    nothing can be written any more, ``paused`` that the server is behind in reading,
    ``deaf`` that we do not read.
    """

    __slots__ = (
        "_drained",
        "_out",
        "_out_size",
        "closed",
        "deaf",
        "loop",
        "lost",
        "paused",
        "reason",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.closed: asyncio.Future[None] = loop.create_future()
        self.reason: str | None = None
        self.lost = False
        self.deaf = False
        self.paused = False
        self._out: list[bytes] = []
        self._out_size = 0
        self._drained: asyncio.Future[None] | None = None

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.use(transport)

    def use(self, transport: asyncio.BaseTransport) -> None:
        """Write to ``transport`` from now on: another one when TLS has begun."""
        self.transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object") is not None
        self.transport.set_write_buffer_limits(
            high=TLS_HIGH_WATER if tls else HIGH_WATER
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.explain(str(exc) if exc else "the server closed the connection")
        self._end()
        self.closed.set_result(None)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self.explain(reason)
        self.transport.abort()
        self._end()

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def _end(self) -> None:
        if not self.lost:
            self.lost = True
            self._out.clear()
            self.resume_writing()
            self.ended()

    def ended(self) -> None:
        """Wake everybody who waits for the server; called once."""

    # --- in ---

    def pause_reading(self) -> None:
        """Let the server keep the messages; it has a limit of its own for that."""
        self.deaf = True
        if not self.lost:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.deaf:
            self.deaf = False
            if not self.lost:
                self.transport.resume_reading()

    # --- out ---

    def write(self, data: bytes) -> None:
        """Send something, together with what else this tick says."""
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
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self.transport.write(data)
        if self.paused and self.transport.get_write_buffer_size() > UNREAD:
            self.abort(f"the server left more than {UNREAD} bytes unread")

    def pause_writing(self) -> None:
        """The server reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The server has caught up, or is gone."""
        self.paused = False
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    @property
    def held_back(self) -> Drained | None:
        """What to await before more is sent, where the server is behind."""
        return Drained(self) if self.paused else None

    async def drained(self) -> None:
        """Return when the server has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.wait((self._drained,))
        if self.lost:
            raise ConnectionLost(self.reason or "")
