"""The server's half of the TCP wire: all connections of one listening server."""

import asyncio
import ssl
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, cast

from ..base import Deliver
from ..sockets import address_text
from .connection import AT_ONCE, LINGER
from .handshake import Handshake
from .line import Line
from .peer import ServerConnection

if TYPE_CHECKING:
    from .transport import TCPTransport

QUIET = 0.05
LAST_WORDS = 1.0
"""Seconds in which a server that stops still takes what comes: who knows nothing of
goodbyes may never be quiet."""


class Intake:
    """Admits peers, bounds what is in flight, and ends in good order."""

    def __init__(
        self,
        options: "TCPTransport",
        deliver: Deliver,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.options = options
        self.deliver = deliver
        self.loop = loop
        self.limit = limit
        self.outstanding = 0
        self.dropped = 0
        self.connections: set[ServerConnection] = set()
        self.handshakes: set[asyncio.Task[None]] = set()
        self.admitted = 0
        self.per_address: Counter[str] = Counter()
        self.waiting: deque[Line] = deque()
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.listener = cast("asyncio.Server", None)
        self._context = context
        self.pausing = False
        self._working = False
        self._nobody: asyncio.Future[None] | None = None

    @property
    def driver(self) -> Any:
        """The asyncio server."""
        return self.listener

    @property
    def address(self) -> str:
        """Where it listens."""
        if not self.listener.sockets:
            return "closed"
        scheme = "tls" if self.options.tls_options else "tcp"
        names = (address_text(s.getsockname()) for s in self.listener.sockets)
        return ", ".join(f"{scheme}://{name}" for name in names)

    # --- peers ---

    def accept(self) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        if self._context is not None:
            return Handshake(self, self._context)
        return ServerConnection(self)

    def admit(self, name: Any) -> str | None:
        """Count a peer in, or return why there is no room for it."""
        options, host = self.options, _host(name)
        if self.admitted >= options.max_connections:
            return f"more than max_connections={options.max_connections}"
        most = options.max_connections_per_address
        if self.per_address[host] >= most:
            return f"more than max_connections_per_address={most}"
        self.admitted += 1
        self.per_address[host] += 1
        return None

    def dismiss(self, name: Any) -> None:
        """Count a peer out."""
        host = _host(name)
        self.admitted -= 1
        self.per_address[host] -= 1
        if not self.per_address[host]:
            del self.per_address[host]

    def part(self, connection: ServerConnection) -> None:
        """Let go of a connection that has ended."""
        self.connections.remove(connection)
        if self._nobody is not None and not self.connections:
            self._nobody.set_result(None)
            self._nobody = None

    # --- the bound on what is in flight ---

    def make_room(self) -> None:
        """Go on where a connection waited for a delivery to end."""
        if not self._working:
            self._work_off()

    def wait(self, line: Line) -> None:
        """Put a peer in line for the room that there is or will be."""
        self.waiting.append(line)
        if not self._working and self.outstanding < self.limit:
            self._work_off()

    def _work_off(self) -> None:
        """Deliver what waits, as far as there is room, and not for long at once.

        What is delivered may be finished on return, so that this comes back to itself
        by :meth:`make_room`: ``_working`` makes that harmless.
        """
        self._working = True
        left = AT_ONCE
        try:
            while self._has_work() and left > 0:
                left -= self.waiting.popleft().work_off(left)
        finally:
            self._working = self._has_work()
            if self._working:
                self.loop.call_soon(self._work_off)

    def _has_work(self) -> bool:
        return bool(self.waiting) and self.outstanding < self.limit

    # --- the end ---

    async def pause(self) -> None:
        """Stop accepting, say goodbye to peers of ours, and answer what still comes.

        Returns when no peer is left, or when nothing is in flight and nothing new
        came for 50 ms, nor was anything read for 1 s by peers that are behind. After
        :data:`LAST_WORDS` nothing new is taken, and each peer is left that awaits
        nothing; for one that we held back they begin when it need not wait any more.
        Events of peers that are gone are handled all the same.
        """
        self.pausing = True
        self._stop_listening()
        for connection in tuple(self.connections):
            if connection.extension is not None:
                connection.extension.say_goodbye()
        began, unread = self.loop.time(), 0
        quiet_at = began + QUIET
        while self.connections and (left := quiet_at - self.loop.time()) > 0:
            await self._until_nobody(min(left, QUIET))
            if self.loop.time() - began > LAST_WORDS:
                self._finish()
            before, unread = unread, self._unread()
            if unread and unread != before:
                quiet_at = self.loop.time() + LINGER
            elif self._is_busy():
                quiet_at = max(quiet_at, self.loop.time() + QUIET)
            talking = (c.heard for c in self.connections if not c.finishing)
            quiet_at = max(quiet_at, max(talking, default=0.0) + QUIET)
        while self.waiting:  # noqa: ASYNC110 - an event would cost every message
            await asyncio.sleep(QUIET)

    def _finish(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.connections):
            said_enough = now - connection.free_since > LAST_WORDS
            if said_enough and not connection.finishing and connection.line is None:
                connection.finish()

    async def close(self) -> None:
        """End writing, read and discard for a moment, close.

        A plain close with unread input would reset the connection, and answers
        already written would be lost.
        """
        self._stop_listening()
        for handshake in self.handshakes:
            handshake.cancel()
        for connection in tuple(self.connections):
            connection.end_writing()
        await self._until_nobody(LINGER)
        for connection in tuple(self.connections):
            connection.transport.abort()
        await self._until_nobody(LINGER)
        for line in tuple(self.waiting):
            line.leave()
        if self.handshakes:
            await asyncio.wait(self.handshakes)
        if not self.closed.done():
            self.closed.set_result(None)

    def _is_busy(self) -> bool:
        """Whether anything is in flight, also what takes no place, or waits."""
        awaited = any(connection.pending.deliveries for connection in self.connections)
        return bool(awaited or self.outstanding or self.waiting)

    def _unread(self) -> int:
        """Count the bytes that wait for peers who read slowly."""
        outputs = (connection.output for connection in self.connections)
        return sum(output.unread for output in outputs if output.paused)

    def _stop_listening(self) -> None:
        self.listener.close()

    async def _until_nobody(self, seconds: float) -> None:
        """Return when no peer is left, or the time is up."""
        if self.connections:
            self._nobody = self.loop.create_future()
            await asyncio.wait((self._nobody,), timeout=seconds)
            self._nobody = None


def _host(name: Any) -> str:
    """Return by what a peer is counted, of its socket's name."""
    return str(name[0]) if name else ""
