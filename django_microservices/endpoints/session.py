"""The client's side of one loop: its connection, for ever made anew."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..concurrency.timers import Timers
from ..exceptions import (
    ConnectionLost,
    MicroserviceError,
    NotConnected,
    TransportRefused,
)
from ..wire.messages import Reply
from ..wire.status import Status, StatusStream
from .backoff import CLIENT_CAP, Backoff
from .calls import Call, StreamCall

if TYPE_CHECKING:
    from ..transports.base import Link, Transport
    from .listeners import Listeners

logger = logging.getLogger(__name__)

# A call made while the connection is down brings the next attempt forward to this many
# seconds after the last one.
ATTEMPT_INTERVAL = 0.5
STREAM_BUFFER = 64


class Session:
    """One open link and the calls that wait on it; entered and left in one task."""

    def __init__(self, transport: "Transport", *, name: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.name = name
        self.transport = transport
        self.pending: dict[Any, Call] = {}
        self.ignored = 0
        self.link: Link = None  # type: ignore[assignment] # set while the block is open
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self.draining = False
        self._end: asyncio.Future[None] = self.loop.create_future()
        self.on_status: Callable[[Status], None] = lambda _: None

    async def run(self) -> None:
        """Hold the link until it is lost or :meth:`stop` is called.

        Raises what ended it: :class:`NotConnected`, :class:`ConnectionLost` ...
        """
        try:
            async with self.transport.connect(self.receive, self._changed) as link:
                self.link = link
                self.opened.set_result(None)
                await asyncio.wait(
                    (link.closed, self._end), return_when=asyncio.FIRST_COMPLETED
                )
                if self._end.done():
                    return
                raise link.closed.result() or ConnectionLost("the link ended")
        except (MicroserviceError, OSError) as error:
            self._fail_all(error)
            raise
        except asyncio.CancelledError:
            self._fail_all(ConnectionLost(f"{self.name}: the client was closed."))
            raise

    def _fail_all(self, reason: BaseException) -> None:
        if not self.opened.done():
            self.opened.set_exception(reason)
            self.opened.exception()  # nobody may be waiting
        calls = tuple(self.pending.values())
        self.pending.clear()
        for call in calls:
            call.fail(ConnectionLost(f"{self.name}: {reason}"))

    def stop(self) -> None:
        """Leave the block; what still waits fails."""
        if not self._end.done():
            self._end.set_result(None)
        self._fail_all(ConnectionLost(f"{self.name}: the client was closed."))

    def _changed(self, status: Status) -> None:
        if status is Status.DRAINING:
            self.draining = True
            if not self.pending:
                self.stop()
        self.on_status(status)

    # --- calls ---

    def send(self, call: Call) -> None:
        """Publish a request and wait for its replies."""
        self.pending[call.id] = call
        call.session = self
        try:
            self.link.publish(call)
        except MicroserviceError as error:
            call.fail(error)

    def receive(self, reply: Reply) -> None:
        """Hand a reply to its call; one that nobody awaits is ignored and counted."""
        try:
            call = self.pending[reply.id]
        except (KeyError, TypeError):
            self.ignored += 1
        else:
            call.receive(reply)

    def forget(self, call: Call, *, answered: bool) -> None:
        """A call ended, however it did."""
        self.pending.pop(call.id, None)
        self.link.forget(call.id, answered=answered)
        if self.draining and not self.pending:
            self.stop()


class Connection:
    """A client on one long-lived loop: connects lazily, reconnects for ever."""

    def __init__(
        self,
        transport: "Transport",
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        listeners: "Listeners",
    ) -> None:
        self.loop = loop
        self.name = name
        self.transport = transport
        self.listeners = listeners
        self.timers = Timers(self.loop)
        self.status = StatusStream()
        self.session: Session | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[Call, None] = {}
        self._hurry = asyncio.Event()
        self._gone = asyncio.Event()

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
        self._waiting[call] = None
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._run())
        self._hurry.set()

    async def emit(self, call: Call) -> None:
        """Send an event; return once the wire has it.

        Raises :class:`NotConnected` and what the transport raises.
        """
        if self.session is None:
            await self.connected(call)
        assert self.session is not None
        waiting = self.session.link.publish(call)
        if waiting is not None:
            await waiting

    async def connected(self, call: Call) -> None:
        """Return when there is a link; raise the reason if there is none in time."""
        probe = Call(call.pattern, None, timeout=call.timeout, client=call.client)
        probe.waiter = self.loop.create_future()
        if probe.timeout is not None:
            probe.bucket = self.timers.add(probe, probe.timeout)
        self._wait_for_link(probe)
        try:
            await probe.waiter
        finally:
            probe.close(answered=True)
            self._waiting.pop(probe, None)

    # --- streams ---

    async def open_stream(self, call: StreamCall) -> Session | None:
        """Send a request whose items are taken one by one.

        Where the wire gives each stream a link of its own, a slow reader holds the
        sender back by TCP itself, and closing the link cancels the stream.
        """
        call.begin()
        if not self.transport.stream_links:
            self.send(call)
            return None
        session = Session(self.transport, name=self.name)
        task = self.loop.create_task(self._hold(session))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        try:
            async with asyncio.timeout(call.timeout):
                await asyncio.shield(session.opened)
        except TimeoutError:
            session.stop()
            raise call.timed_out() from None
        except OSError as error:
            message = f"{self.name}: {error}"
            raise NotConnected(message) from error
        link: Any = session.link
        call.high_water = STREAM_BUFFER
        call.pause, call.resume = link.pause_reading, link.resume_reading
        session.send(call)
        return session

    async def close_stream(self, call: StreamCall, session: Session | None) -> None:
        """Cancel what is left of a stream."""
        call.close(answered=call.ended)
        if session is not None:
            session.stop()

    # --- the link ---

    async def _run(self) -> None:
        backoff = Backoff(CLIENT_CAP)
        while True:
            self._hurry.clear()
            attempted = self.loop.time()
            session = Session(self.transport, name=self.name)
            session.on_status = self._changed
            task = self.loop.create_task(self._hold(session))
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)
            try:
                await self._attempt(session)
            except TransportRefused as refusal:
                self._refused(refusal)
                return
            except (MicroserviceError, OSError) as error:
                self._failed(error)
            else:
                backoff.reset()
                await self._gone.wait()
            await self._pause(backoff, attempted)

    async def _attempt(self, session: Session) -> None:
        if self.status.value is not Status.RECONNECTING:
            self.status.change(Status.CONNECTING)
        await session.opened
        self._gone.clear()
        self.session = session
        self.status.change(Status.CONNECTED)
        self.listeners.call("connect")
        waiting = tuple(self._waiting)
        self._waiting.clear()
        for call in waiting:
            if call.is_event:
                call.succeed(None)
            elif not call.done:
                session.send(call)

    async def _hold(self, session: Session) -> None:
        """Keep a session's block open in a task of its own."""
        try:
            await session.run()
        except (MicroserviceError, OSError) as error:
            if self.session is session:
                logger.warning("Client %r: %s", self.name, error)
                self.listeners.call("error", error)
        finally:
            self._lost(session)

    def _lost(self, session: Session) -> None:
        if self.session is session:
            self.session = None
            self.status.change(Status.RECONNECTING)
            self.listeners.call("disconnect")
            self._gone.set()

    def _changed(self, status: Status) -> None:
        if status is Status.DRAINING:
            # The old session ends by itself when nothing waits on it any more.
            self.session = None
            self._gone.set()
        else:
            self.status.change(status)

    def _failed(self, error: BaseException) -> None:
        self.status.change(Status.RECONNECTING)
        self.listeners.call("error", error)
        self._fail_waiting(error)

    def _refused(self, refusal: TransportRefused) -> None:
        self.status.change(Status.CLOSED)
        self.listeners.call("error", refusal)
        self._fail_waiting(refusal)

    def _fail_waiting(self, reason: BaseException) -> None:
        calls = tuple(self._waiting)
        self._waiting.clear()
        for call in calls:
            if isinstance(reason, MicroserviceError) and not isinstance(
                reason, NotConnected
            ):
                call.fail(reason)
            else:
                call.fail(NotConnected(f"{self.name}: {reason}"))

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
        """Leave every block; what still waits fails."""
        tasks = [*self._sessions]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._fail_waiting(ConnectionLost("the client was closed"))
        self.session = None
        self.status.change(Status.CLOSED)
