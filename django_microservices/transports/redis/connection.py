"""One connection to Redis: commands out, together what a tick writes; answers in."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from ...exceptions import ConnectionLost, InvalidMessage
from ...wire.text import shown
from ..stream import EAGER, BatchedStream
from .protocol import Answered, Conversation, Received, ReplyError, command

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SILENCE = 4.0
PATIENCE = 2.0
"""Seconds for the answer to a PING, twice: a loop that was held up itself reads what
has come in between."""
LINGER = 1.0

_PING = command("PING")


class Connection(BatchedStream):
    """A connection of our own, for what travels often.

    ``received`` is called with each message, ``ended`` with the reason once nothing
    more can be written.
    """

    __slots__ = (
        "_conversation",
        "_ended",
        "_timer",
        "_unanswered",
        "counts_all",
        "heard",
    )

    peer = "Redis"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ended: "Callable[[str], None]",
        received: Received = lambda _: None,
    ) -> None:
        super().__init__(loop)
        self.lost = True  # until it is made
        self.heard = 0.0
        self.counts_all = True
        """Whether the answer to PUBLISH tells of all subscribers; not in a cluster."""
        self._ended = ended
        self._conversation = Conversation(received, _refused)
        self._timer = cast("asyncio.TimerHandle", None)
        self._unanswered = 0

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch over Redis."""
        super().connection_made(transport)
        self.lost = False
        self.heard = self.loop.time()
        self._watch()

    def ended(self) -> None:
        """Tell the owner, and everybody who waits for an answer."""
        self._timer.cancel()
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

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand over what was read."""
        self.heard = self.loop.time()
        try:
            self._conversation.receive(data)
        except InvalidMessage as error:
            self.abort(str(error))

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.heard = self.loop.time()
        super().resume_reading()

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
