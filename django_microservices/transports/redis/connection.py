"""One connection to Redis: commands out, together what a tick writes; answers in."""

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost, InvalidMessage
from ...wire.text import shown
from .protocol import Answered, Conversation, Received, ReplyError, command

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

logger = logging.getLogger(__name__)

# Output is handed over before the tick ends once it has this many commands, so that
# Redis works on the first part while we make the rest.
EAGER = 32
HIGH_WATER = 256
UNREAD = 16 * 1024 * 1024
"""Bytes that Redis may leave unread."""
SILENCE = 4.0
PATIENCE = 2.0
"""Seconds for the answer to a PING, twice: a loop that was held up itself reads what
has come in between."""
LINGER = 1.0

_PING = command("PING")


class Drained:
    """Waits until Redis has read; unlike a coroutine it may be let go unawaited."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def __await__(self) -> "Generator[Any, None, None]":
        return self._connection.drained().__await__()


class Connection(asyncio.Protocol):
    """A connection of our own, for what travels often.

    ``received`` is called with each message, ``ended`` with the reason once nothing
    more can be written. ``lost`` says that, ``paused`` that Redis is behind in reading,
    ``deaf`` that we do not read.
    """

    __slots__ = (
        "_conversation",
        "_drained",
        "_ended",
        "_out",
        "_timer",
        "_unanswered",
        "counts_all",
        "deaf",
        "heard",
        "loop",
        "lost",
        "paused",
        "reason",
        "transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ended: "Callable[[str], None]",
        received: Received = lambda _: None,
    ) -> None:
        self.loop = loop
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.heard = 0.0
        self.lost = True  # until it is made
        self.deaf = False
        self.paused = False
        self.counts_all = True
        """Whether the answer to PUBLISH tells of all subscribers; not in a cluster."""
        self.reason: str | None = None
        self._ended = ended
        self._conversation = Conversation(received, _refused)
        self._out: list[bytes] = []
        self._drained: asyncio.Future[None] | None = None
        self._timer = cast("asyncio.TimerHandle", None)
        self._unanswered = 0

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch over Redis."""
        self.transport = cast("asyncio.Transport", transport)
        self.lost = False
        plain = transport.get_extra_info("sslcontext") is None
        self.transport.set_write_buffer_limits(high=HIGH_WATER if plain else None)
        self.heard = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, and everybody who waits for an answer."""
        self.explain(str(exc) if exc is not None else "Redis closed the connection")
        self._stop()

    def abort(self, reason: str) -> None:
        """End the connection at once; harmless where there is none."""
        if not self.lost:
            self.explain(reason)
            self.transport.abort()
            self._stop()

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end."""
        if self.reason is None:
            self.reason = reason

    def _stop(self) -> None:
        if self.lost:
            return
        self.lost = True
        self._out.clear()
        self._timer.cancel()
        self.resume_writing()
        reason = self.reason or ""
        error = ConnectionLost(reason)
        awaited = self._conversation.awaited
        while awaited:
            if (answered := awaited.popleft()) is not None:
                answered(error)
        self._ended(reason)

    async def close(self) -> None:
        """Close once Redis has taken what was written, or after a moment.

        A plain close with answers unread would reset the connection, and Redis would
        lose what it has not read yet.
        """
        with contextlib.suppress(OSError, ReplyError):
            async with asyncio.timeout(LINGER):
                await self.ask("PING")
        self.abort("closed")

    def set_options(self, *, no_delay: bool, keep_alive: float) -> None:
        """Set what is asked of a TCP socket; Unix sockets have no such options."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
        if keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):  # not every system has it
                seconds = max(1, round(keep_alive))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)

    # --- out ---

    def send(self, text: bytes, answered: Answered | None = None) -> None:
        """Send a command; ``answered`` gets its answer, an error as a value.

        On a connection that is lost nothing is sent, and nothing said.
        """
        if self.lost:
            return
        self._conversation.awaited.append(answered)
        out = self._out
        if not out:
            self.loop.call_soon(self.flush)
        out.append(text)
        if len(out) >= EAGER:
            self.flush()

    def ask(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command that has one answer, and return the future of it.

        It raises Redis' refusal, and :class:`ConnectionLost`.
        """
        future: asyncio.Future[Any] = self.loop.create_future()

        def answered(value: Any) -> None:
            if future.done():
                return
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)

        if self.lost:
            answered(ConnectionLost(self.reason or ""))
        self.send(command(*words), answered)
        return future

    def flush(self) -> None:
        """Hand what was written to the socket."""
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.transport.write(data)
        if self.paused and self.transport.get_write_buffer_size() > UNREAD:
            self.abort(f"Redis left more than {UNREAD} bytes unread")

    def pause_writing(self) -> None:
        """Redis reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """Redis has caught up, or is gone."""
        self.paused = False
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        """Return when Redis has read enough to send more."""
        while self.paused and not self.lost:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.wait((self._drained,))
        if self.lost:
            raise ConnectionLost(self.reason or "")

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand over what was read."""
        self.heard = self.loop.time()
        try:
            self._conversation.receive(data)
        except InvalidMessage as error:
            self.abort(str(error))

    def pause_reading(self) -> None:
        """Let Redis keep the messages; it has a limit of its own for that."""
        self.deaf = True
        if not self.lost:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.deaf = False
        self.heard = self.loop.time()
        if not self.lost:
            self.transport.resume_reading()

    # --- a mute Redis ---

    def _watch(self) -> None:
        """See that Redis lives, every few seconds; its kernel acknowledges for it."""
        seconds = self._check()
        if not self.lost:
            self._timer = self.loop.call_later(seconds, self._watch)

    def _check(self) -> float:
        """Ask where all is silent; return the seconds until the next look."""
        silent = 0.0 if self.deaf else self.loop.time() - self.heard
        if silent < SILENCE:
            self._unanswered = 0
            return SILENCE - silent
        if not self._unanswered:
            self.send(_PING)
        elif self._unanswered > 1:
            self.abort(f"Redis was silent for {silent:.0f} s")
        self._unanswered += 1
        return PATIENCE


def _refused(error: ReplyError) -> None:
    """Log why Redis did not do something for which nobody waits."""
    logger.error("Redis refused a command: %s", shown(str(error)))
