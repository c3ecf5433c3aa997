"""One socket: what a tick says goes out together, and the peer's reading is heeded."""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..exceptions import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

# Output is handed over before the tick ends once it has this many messages, so that the
# peer works on the first part while we make the rest. uvloop sends at once what is over
# its high water, and otherwise when the tick ends.
EAGER = 32
EAGER_BYTES = 32 * 1024
HIGH_WATER = 256
# The end of the handshake, still unsent when TLS is ready, counts: were it over the
# high water, reading would stop at once, and nothing would ever send it.
TLS_HIGH_WATER = 64 * 1024
UNREAD = 16 * 1024 * 1024
"""Bytes that a peer may leave unread."""
UNREAD_PATIENCE = 5.0
"""Seconds in which a broker that has more than that to read must read a 16th of it."""


class Drained:
    """Waits until the peer has read; unlike a coroutine it may be let go unawaited."""

    __slots__ = ("_args", "_wait")

    def __init__(self, wait: "Callable[..., Awaitable[None]]", *args: Any) -> None:
        self._wait = wait
        self._args = args

    def __await__(self) -> "Generator[Any, None, None]":
        return self._wait(*self._args).__await__()


class Backpressure:
    """Has callers wait while the peer is behind in reading, which ``paused`` says.

    ``lost`` says that nothing can be written any more.
    """

    __slots__ = ("_drained", "loop", "lost", "paused")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lost = False
        self.paused = False
        self._drained: asyncio.Future[None] | None = None

    def why(self) -> str | None:
        """Return why nothing can be written any more."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The peer has caught up, or is gone."""
        self.paused = False
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        """Return when the peer has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)
        if self.lost:
            raise ConnectionLost(self.why() or "the connection ended")


class BatchedStream(Backpressure, asyncio.Protocol):
    """The bytes of a connection to a broker, in both directions.

    ``closed`` ends with the reason when the socket is closed. ``deaf`` says that we do
    not read. ``owed`` is for who counts how long the kernel's acknowledgement may wait:
    what is written carries it. ``peer`` is what texts call the broker, ``most_unread``
    how many bytes it may leave unread for long: one burst or message may be larger.
    """

    __slots__ = (
        "_behind",
        "_handed",
        "_out",
        "_out_size",
        "closed",
        "deaf",
        "owed",
        "reason",
        "transport",
    )

    peer: ClassVar[str] = "the server"
    high_water: ClassVar[int] = HIGH_WATER
    most_unread: ClassVar[float] = UNREAD

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.reason: str | None = None
        self.deaf = False
        self.owed = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._handed = 0
        self._behind: asyncio.TimerHandle | None = None

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.use(transport)

    def use(self, transport: asyncio.BaseTransport) -> None:
        """Write to ``transport`` from now on: another one when TLS has begun."""
        self.transport = cast("asyncio.Transport", transport)
        plain = transport.get_extra_info("sslcontext") is None
        high = self.high_water if plain else TLS_HIGH_WATER
        self.transport.set_write_buffer_limits(high=high)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.explain(str(exc) if exc else f"{self.peer} closed the connection")
        self.stop()
        self.closed.set_result(ConnectionLost(self.reason))

    def abort(self, reason: str) -> None:
        """End the connection at once; harmless where there is none."""
        self.explain(reason)
        if self.transport is not None:
            self.transport.abort()
        self.stop()

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def why(self) -> str | None:
        """Return the reason for the end."""
        return self.reason

    def stop(self) -> None:
        """Write nothing more: the socket takes nothing."""
        if not self.lost:
            self.lost = True
            self._out.clear()
            self._out_size = 0
            if self._behind is not None:
                self._behind.cancel()
            self.resume_writing()
            self.ended()

    def ended(self) -> None:
        """Wake everybody who waits for the peer; called once."""

    # --- in ---

    def pause_reading(self) -> None:
        """Let TCP hold the peer back, which has limits of its own for that."""
        self.deaf = True
        if not (self.lost or self.transport.is_closing()):
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self.deaf = False
        if not (self.lost or self.transport.is_closing()):
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
        self._out_size = self.owed = 0
        self._handed += len(data)
        self.transport.write(data)
        if self.paused and self._behind is None:
            self._watch_unread()

    # --- a peer that is behind ---

    def _watch_unread(self) -> None:
        """Look again later at a peer that has very much to read."""
        unread = self.transport.get_write_buffer_size()
        if unread > self.most_unread:
            taken = self._handed - unread
            self._behind = self.loop.call_later(
                UNREAD_PATIENCE, self._look_unread, taken
            )

    def _look_unread(self, before: int) -> None:
        """End the connection of one that still has, and reads no more."""
        self._behind = None
        unread = self.transport.get_write_buffer_size()
        read = self._handed - unread - before
        if unread <= self.most_unread or read >= self.most_unread / 16:
            self._watch_unread()
        else:
            self.abort(f"{self.peer} left more than {self.most_unread} bytes unread")
