"""A client on one event loop: its connection, for ever made anew."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ..concurrency.timers import Timers
from ..exceptions import (
    MessageTooLarge,
    MicroserviceError,
    NotConnected,
    TransportRefused,
)
from ..wire.status import Status, StatusStream
from .backoff import CLIENT_CAP, Backoff
from .calls import Call, LinkWaiter, StreamCall
from .session import CLOSED, Session

if TYPE_CHECKING:
    from ..transports.base import Transport
    from .listeners import Listeners

logger = logging.getLogger(__name__)

# A call made while the connection is down brings the next attempt forward to this many
# seconds after the last one.
ATTEMPT_INTERVAL = 0.5
STREAM_BUFFER = 64


class Connection:
    """A client on one long-lived loop: connects lazily, reconnects for ever."""

    def __init__(
        self,
        transport: "Transport",
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        listeners: "Listeners",
        status: StatusStream,
    ) -> None:
        self.loop = loop
        self.name = name
        self.transport = transport
        self.listeners = listeners
        self.status = status
        self.timers = Timers(loop)
        self.session: Session | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[Call, float] = {}  # since when, on the loop's clock
        self._hurry = asyncio.Event()
        self._gone = asyncio.Event()
        self._is_closed = False

    # --- calls ---

    def begin(self, call: Call) -> None:
        """Send a request as soon as there is a link; its time runs from now."""
        if call.timeout is not None:
            call.bucket = self.timers.add(call, call.timeout)
        self.send(call)

    def send(self, call: Call) -> None:
        """Send a request as soon as there is a link; the caller keeps the time."""
        if call.done:
            return
        if self.session is not None:
            self.session.send(call)
        else:
            self._wait_for_link(call)

    def _wait_for_link(self, call: Call) -> None:
        if self._is_closed or self.loop.is_closed():
            call.fail(NotConnected(f"{self.name}: {CLOSED}"))
            return
        self._waiting[call] = self.loop.time()
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._run())
        self._hurry.set()

    async def emit(self, call: Call) -> None:
        """Send an event; return once the wire has it.

        Raises :class:`NotConnected`, what the transport raises, and
        :class:`MessageTimeout` where the wire does not take it in time.
        """
        session = self.session or await self.connected(call)
        try:
            waiting = session.link.publish(call)
        except MessageTooLarge as error:
            raise call.explained(error) from None
        if isinstance(waiting, asyncio.Future):
            await self._confirmed(call, waiting)
        elif waiting is not None:
            await _awaited(call, waiting)

    async def _confirmed(self, call: Call, confirm: "asyncio.Future[None]") -> None:
        """Wait for the wire's confirm; many of them share the timers."""
        call.waiter = confirm
        if call.timeout is not None:
            call.bucket = self.timers.add(call, call.timeout)
        try:
            await confirm
        finally:
            call.close(answered=True)
            call.waiter = None  # it holds the error whose traceback holds this frame

    async def connected(self, call: Call) -> Session:
        """Return the link's session; raise the reason if there is none in time."""
        if self.session is not None:
            return self.session
        probe = LinkWaiter(call.pattern, None, timeout=call.timeout, client=call.client)
        probe.waiter = self.loop.create_future()
        if probe.timeout is not None:
            probe.bucket = self.timers.add(probe, probe.timeout)
        self._wait_for_link(probe)
        try:
            session: Session = await probe.waiter
        finally:
            probe.close(answered=True)
            self._waiting.pop(probe, None)
        return session

    # --- streams ---

    async def open_stream(self, call: StreamCall) -> None:
        """Send a request whose items are taken one by one.

        Where the wire gives each stream a link of its own, a slow reader holds the
        sender back by TCP itself, and closing the link cancels the stream.
        """
        call.begin()
        if not self.transport.stream_links:
            self.send(call)
            return
        session = self._keep(Session(self.transport, name=self.name))
        try:
            await self._opened(session, call)
        except BaseException:
            session.stop()
            raise
        link: Any = session.link
        call.high_water = STREAM_BUFFER
        call.pause, call.resume = link.pause_reading, link.resume_reading
        session.send(call)

    async def _opened(self, session: Session, call: StreamCall) -> None:
        try:
            async with asyncio.timeout(call.timeout):
                await asyncio.shield(session.opened)
        except TimeoutError:
            raise call.timed_out() from None
        except OSError as error:
            message = f"{self.name}: {error}"
            raise NotConnected(message) from error

    def close_stream(self, call: StreamCall) -> None:
        """Cancel what is left of a stream; on the loop."""
        call.close(answered=call.ended)
        if self.transport.stream_links and call.session is not None:
            call.session.stop()

    # --- the link ---

    def _keep(self, session: Session) -> Session:
        self._sessions.add(session.task)
        session.task.add_done_callback(self._sessions.discard)
        return session

    async def _run(self) -> None:
        """Connect, and again when the link is gone, until closed or refused."""
        backoff = Backoff(CLIENT_CAP)
        try:
            while True:
                attempted = self.loop.time()
                try:
                    await self._attempt()
                except TransportRefused as refusal:
                    self._failed(refusal, Status.CLOSED)
                    return
                except (MicroserviceError, OSError) as error:
                    self._failed(error, Status.RECONNECTING)
                else:
                    await self._gone.wait()
                    backoff.held(self.loop.time() - attempted)
                await self._pause(backoff, attempted)
        finally:
            # However it ended, nobody waits for ever.
            self._fail_waiting(NotConnected(CLOSED))

    async def _attempt(self) -> None:
        if self.status.value is not Status.RECONNECTING:
            self.status.change(Status.CONNECTING)
        self._gone.clear()
        session = self._keep(
            Session(
                self.transport,
                name=self.name,
                retired=self._retired,
                changed=self.status.change,
            )
        )
        await session.opened
        if self._gone.is_set():  # gone in the very tick in which it came
            return
        self.session = session
        self.status.change(Status.CONNECTED)
        self.listeners.call("connect")
        self._send_waiting(session)

    def _send_waiting(self, session: Session) -> None:
        """Send what waited for the link; in one process nobody waits for one."""
        now = self.loop.time()
        for call, since in self._take_waiting():
            if isinstance(call, LinkWaiter):
                call.succeed(session)
            else:
                session.send(call, 0.0 if self.transport.in_process else now - since)

    def _retired(self, session: Session, reason: BaseException | None) -> None:
        """Take no more calls on a link that is lost, or whose server says goodbye."""
        self._gone.set()
        if self.session is not session:
            return
        self.session = None
        if not self._is_closed:
            self.status.change(Status.RECONNECTING)
            if reason is not None:
                logger.warning("Client %r: %s", self.name, reason)
                self.listeners.call("error", reason)
        self.listeners.call("disconnect")

    def _failed(self, error: BaseException, status: Status) -> None:
        self.status.change(status)
        self.listeners.call("error", error)
        self._fail_waiting(error)

    def _fail_waiting(self, reason: BaseException) -> None:
        refused = isinstance(reason, TransportRefused)
        kind = TransportRefused if refused else NotConnected
        for call, _ in self._take_waiting():
            call.fail(kind(f"{self.name}: {reason}"))

    def _take_waiting(self) -> list[tuple[Call, float]]:
        calls = [item for item in self._waiting.items() if not item[0].done]
        self._waiting.clear()
        return calls

    async def _pause(self, backoff: Backoff, attempted: float) -> None:
        """Wait with jitter; a call brings the next attempt forward."""
        until = self.loop.time() + backoff.next()
        while (left := until - self.loop.time()) > 0:
            if self._waiting:
                soonest = attempted + ATTEMPT_INTERVAL - self.loop.time()
                left = min(left, soonest)
            if left <= 0:
                return
            self._hurry.clear()
            try:
                async with asyncio.timeout(left):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Leave every block; return when all are left."""
        if tasks := self.end():
            await asyncio.wait(tasks)

    def end(self) -> list[asyncio.Task[None]]:
        """Have every block left; what still waits fails, and so does what comes."""
        self._is_closed = True
        tasks = [*self._sessions]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        self.status.change(Status.CLOSED)
        return tasks


async def _awaited(call: Call, waiting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(call.timeout):
            await waiting
    except TimeoutError:
        raise call.timed_out() from None
