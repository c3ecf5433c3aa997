"""What becomes of one message on the server."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from django.core.exceptions import SynchronousOnlyOperation

from ..concurrency.tasks import start_task
from ..dispatch.errors import (
    TIMED_OUT,
    TIMED_OUT_ERROR,
    error_text,
    is_expected,
    reason_of,
)
from ..dispatch.payloads import PayloadError
from ..exceptions import MessageTimeout
from ..transports.redelivery import GIVEN_BACK
from ..wire.context import MessageContext, current
from ..wire.messages import UNSET, Message, Reply
from ..wire.text import shown
from .observing import announce, observe

if TYPE_CHECKING:
    from ..concurrency.timers import Bucket
    from ..transports.base import Respond
    from .routing import Route
    from .server import Server

logger = logging.getLogger(__name__)

ACK, RETRY, DEAD = "ack", "retry", "dead"
TRAVELS = (asyncio.CancelledError, KeyboardInterrupt)
"""What ends a task or the process, whatever is answered."""


class Delivery(msgspec.Struct, eq=False):
    """One message with one handler; also the job that a sync thread runs.

    ``outcome`` is ``None`` until it is done. ``verdict`` is what the handler itself
    decided by the context's ``ack()``, ``nack()`` or ``reject()``; of one of several
    handlers (``is_part``) the broker is told with the others' outcomes.
    """

    server: "Server"
    route: "Route"
    message: Message
    context: MessageContext[Any]
    respond: "Respond | None"
    outcome: str | None = None
    reason: str = ""
    verdict: tuple[str, float | None, str] | None = None
    is_part: bool = False
    reply: Reply | None = None
    error: BaseException | None = None
    task: asyncio.Task[None] | None = None
    bucket: "Bucket | None" = None
    callback: Callable[[Any], None] | None = None
    started: float = 0.0
    is_stream: bool = False
    takes_place: bool = True

    # --- life, on the loop ---

    def start(self) -> None:
        """Hand the message to its handler."""
        server, route = self.server, self.route
        server.in_flight.add(self)
        if server.observed:
            self.started = announce(self)
        message = self.message
        # Nobody waits for an event, whatever its headers say (of another message).
        timeout = None if message.id is UNSET else message.timeout
        if timeout is not None:
            self.context.deadline = server.timers.time() + timeout
            if timeout <= 0:  # it was used up while the message waited for room
                self.expire()
                return
        if route.is_async or route.timeout is not None:
            self._limit(timeout, route.timeout)
        if route.is_async:
            self.task = start_task(server.loop, self._run_on_loop())
        else:
            server.threads.submit(self)

    def _limit(self, timeout: float | None, own: float | None) -> None:
        """Bound the time: the caller's patience, or the handler's own ``timeout=``.

        A thread cannot be stopped, so the caller's deadline only keeps a sync handler
        from starting too late; a stream's timeouts are for each item.
        """
        if own is not None and (timeout is None or own < timeout):
            timeout = own
        if timeout is not None:
            self.bucket = self.server.timers.add(self, timeout)

    def when_done(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(delivery)`` once it is done, at once if it is."""
        if self.outcome is not None:
            callback(self)
        else:
            self.callback = callback

    def cancel(self) -> None:
        """Nobody wants the answer any more; an event is tried again."""
        self._give_up(RETRY if self.message.is_event else ACK)

    def give_back(self) -> None:
        """The server stops: somebody else must take it."""
        self._give_up(RETRY)

    def _give_up(self, outcome: str) -> None:
        if self.outcome is None:
            self.reply = None
            self.reason = GIVEN_BACK
            self._end(outcome)
            self._cancel_task()

    def settle(self, outcome: str, delay: float | None, reason: str) -> None:
        """Take the handler's own verdict, from any thread; the first one counts."""
        if self.verdict is None and self.message.settle is not None:
            self.verdict = (outcome, delay, reason)
            if not self.is_part:
                self.server.call(self.message.settle, *self.verdict)

    @property
    def delay(self) -> float | None:
        """Seconds until it may be tried again, where the handler said so."""
        return None if self.verdict is None else self.verdict[1]

    def expire(self) -> None:
        """The time is up: answer so, and let a thread that hangs go its way."""
        self.error = TimeoutError(TIMED_OUT)
        self.reply = Reply(self.message.id, None, TIMED_OUT_ERROR)
        where = self.route.handler.name
        logger.warning(
            "%s ran out of time for %s.", where, self.shown, extra=self.extra
        )
        self.server.timed_out += 1
        self._end(self._own_outcome())
        self._cancel_task()

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    # --- a sync handler, on a thread ---

    def run(self) -> None:
        """Run the handler; on a thread of the pool, which isolates its context."""
        context, route = self.context, self.route
        deadline = context.deadline
        if self.outcome is not None:
            return
        if deadline is not None and self.server.timers.time() > deadline:
            self._came_too_late()
            return
        current.set(context)
        try:
            value = route.call(context)
            if self.respond is not None:
                data = None if value is UNSET else route.encode(value)
                self.reply = Reply(self.message.id, data)
        except BaseException as error:
            self._fail(error)  # sys.exit() of a handler is answered as well
            if isinstance(error, KeyboardInterrupt):
                raise

    def _came_too_late(self) -> None:
        """The caller gave up while the message waited for a thread."""
        self.error = MessageTimeout(TIMED_OUT)
        self.reply = Reply(self.message.id, None, TIMED_OUT_ERROR)
        logger.warning("No thread in time for %s.", self.shown, extra=self.extra)

    def finish(self) -> None:
        """Take note of the thread's result; on the loop."""
        self._end(self._own_outcome())

    # --- an async handler ---

    async def _run_on_loop(self) -> None:
        context, route = self.context, self.route
        current.set(context)
        try:
            value = await route.call(context)
            if self.respond is not None:
                try:
                    data = None if value is UNSET else route.encode(value)
                except SynchronousOnlyOperation:
                    data = await self._encode_on_a_thread(value)
                self.reply = Reply(self.message.id, data)
        except BaseException as error:
            self._fail_on_loop(error)
            if isinstance(error, TRAVELS):
                raise
        else:
            self._end(self._own_outcome())

    def _fail_on_loop(self, error: BaseException) -> None:
        """Answer with an error, and when the handler awaited what somebody cancelled.

        It has its outcome already where it was cancelled by ourselves.
        """
        if self.outcome is None or isinstance(error, Exception | SystemExit):
            self._fail(error)
        self._end(self._own_outcome())

    async def _encode_on_a_thread(self, value: Any) -> bytes:
        """Encode what has rows yet to be fetched, a QuerySet or a relation."""
        data: bytes = await self.server.threads.call(self.route.encode, value)
        return data

    # --- the end ---

    def _own_outcome(self) -> str:
        """Decide what the broker is told, where the wire has one.

        A request is done once it is answered, if only with an error; of events only
        those that cannot be read are not tried again.
        """
        error = self.error
        if error is None or self.respond is not None:
            return ACK
        self.reason = reason_of(error)
        return DEAD if isinstance(error, PayloadError) else RETRY

    def _fail(self, error: BaseException) -> None:
        """Decide what the caller may know of an error, and log the rest here."""
        self.error = error
        if not is_expected(error):
            name = self.route.handler.name
            logger.error(
                "%s failed for %s.",
                name,
                self.shown,
                exc_info=error,
                extra=self.extra,
            )
        if self.respond is not None:
            self.reply = Reply(self.message.id, None, error_text(error))

    def _end(self, outcome: str) -> None:
        """Answer and forget; once, on the loop."""
        if self.outcome is not None:
            return
        if self.verdict is not None:
            outcome, _, self.reason = self.verdict
        self.outcome = outcome
        server = self.server
        server.in_flight.discard(self)
        if self.bucket is not None:
            self.bucket.pop(self, None)
        reply, respond = self.reply, self.respond
        if reply is not None and respond is not None:
            try:
                waiting = respond(reply)
            except Exception as error:  # noqa: BLE001 - Nest's seams raise anything
                waiting = self._answer_with(error, respond)
            if waiting is not None and hasattr(waiting, "close"):
                waiting.close()  # this was the last: nothing is left to hold back
        if self.callback is not None:
            self.callback(self)
        if server.observed:
            observe(self)
        if self.error is not None:
            self.error = None  # its traceback would keep this, and this it, alive

    def _answer_with(self, error: Exception, respond: "Respond") -> Any:
        """Answer with an error where the answer itself cannot be sent."""
        logger.error("No answer to %s: %s", self.shown, error, extra=self.extra)
        try:
            return respond(Reply(self.message.id, None, error_text(error)))
        except Exception:
            logger.exception("Nor can the error be sent.", extra=self.extra)

    @property
    def abandoned(self) -> bool:
        """Whether a thread that still runs it does so for nobody."""
        return self.outcome is not None

    def __repr__(self) -> str:
        return f"<{self.route.handler.name} for {self.shown}>"

    @property
    def extra(self) -> dict[str, Any]:
        """Name the message to ``log.MessageFilter``, wherever the record is made."""
        return {"message_context": self.context}

    @property
    def shown(self) -> str:
        """The message, for a log line."""
        kind = "event" if self.message.id is UNSET else "request"
        return f"{kind} {shown(self.message.pattern.route)}"
