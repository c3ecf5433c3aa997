"""One open link of a client, and the calls that wait on it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import (
    ConnectionLost,
    MessageTooLarge,
    MicroserviceError,
    NotConnected,
)
from ..wire.messages import Reply
from ..wire.status import Status
from .calls import Call

if TYPE_CHECKING:
    from ..transports.base import Link, Transport

logger = logging.getLogger(__name__)

CLOSED = "the client was closed"


def _unheard(*_: Any) -> None:
    """Tell nobody."""


class Session:
    """One link, entered and left in one task of its own.

    ``opened`` ends when there is a link, or with what prevented it. ``retired(session,
    reason)`` is called once, at the moment from which no new call may use the link:
    with the reason when it was lost, with ``None`` when the server said goodbye (what
    waits on it then is still answered) or when the client was closed.
    ``changed(status)`` gets what the wire reports.
    """

    def __init__(
        self,
        transport: "Transport",
        *,
        name: str,
        retired: Callable[["Session", BaseException | None], None] = _unheard,
        changed: Callable[[Status], None] = _unheard,
    ) -> None:
        self.name = name
        self.transport = transport
        self.pending: dict[Any, Call] = {}
        self.ignored = 0
        self.draining = False
        self.link: Link = None  # type: ignore[assignment] # set before ``opened`` ends
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self._retired = retired
        self._status_changed = changed
        self._is_retired = False
        self._end: asyncio.Future[None] = loop.create_future()
        self._confirming: set[asyncio.Future[None]] = set()
        self.task = loop.create_task(self._run())

    async def _run(self) -> None:
        reason: BaseException = ConnectionLost(CLOSED)
        try:
            reason = await self._hold()
        except asyncio.CancelledError:
            self._retire(None)  # our own doing: nothing to tell anybody
            raise
        except (MicroserviceError, OSError) as error:
            reason = error
        except Exception as error:
            logger.exception("The transport of client %r failed.", self.name)
            reason = NotConnected(f"{type(error).__name__}: {error}")
        finally:
            self._lose(reason)

    async def _hold(self) -> BaseException:
        """Hold the link until it is lost or :meth:`stop` is called."""
        async with self.transport.connect(self.receive, self._changed) as link:
            self.link = link
            if not self.opened.done():
                self.opened.set_result(None)
            await asyncio.wait(
                (link.closed, self._end), return_when=asyncio.FIRST_COMPLETED
            )
            if self._end.done():
                return ConnectionLost(CLOSED)
            reason = link.closed.result() or ConnectionLost("the link ended")
            self._lose(reason)  # leaving the block may take its time
            return reason

    def _lose(self, reason: BaseException) -> None:
        """Fail what waits; harmless when repeated."""
        if not self.opened.done():
            self.opened.set_exception(reason)
            self.opened.exception()  # nobody may be waiting
        calls = tuple(self.pending.values())
        self.pending.clear()
        kind = (
            MessageTooLarge if isinstance(reason, MessageTooLarge) else ConnectionLost
        )
        for call in calls:
            call.fail(kind(f"{self.name}: {reason}"))
        self._retire(reason)

    def _retire(self, reason: BaseException | None) -> None:
        if not self._is_retired:
            self._is_retired = True
            self._retired(self, reason)

    def stop(self) -> None:
        """Leave the block; what still waits fails."""
        if not self.opened.done():
            self.task.cancel()
        elif not self._end.done():
            self._end.set_result(None)
        self._lose(ConnectionLost(CLOSED))

    def _changed(self, status: Status) -> None:
        if status is not Status.DRAINING:
            self._status_changed(status)
            return
        self.draining = True
        self._retire(None)
        self.stop_if_idle()

    # --- calls ---

    def send(self, call: Call, waited: float = 0.0) -> None:
        """Publish a request and wait for its replies; an error goes to its caller.

        ``waited`` is in seconds, and gone from what the other side is told that the
        caller will wait.
        """
        self.pending[call.id] = call
        call.session = self
        try:
            waiting = self.link.publish(call.after(waited) if waited else call)
        except MessageTooLarge as error:
            call.fail(call.explained(error))
        except Exception as error:  # noqa: BLE001 - its caller gets it
            call.fail(error)
        else:
            if waiting is not None:
                self._confirm(call, waiting)

    def _confirm(self, call: Call, waiting: Awaitable[None]) -> None:
        """Fail the call if the wire does not take it."""
        future = asyncio.ensure_future(waiting)
        self._confirming.add(future)

        def done(_: Any) -> None:
            self._confirming.discard(future)
            error = None if future.cancelled() else future.exception()
            if error is not None:
                call.fail(error)

        future.add_done_callback(done)

    def receive(self, reply: Reply) -> None:
        """Hand a reply to its call; one that nobody awaits is ignored and counted."""
        try:
            call = self.pending[reply.id]
        except (KeyError, TypeError):
            self.ignored += 1
        else:
            call.receive(reply)

    def stop_if_idle(self) -> None:
        """End a session that the server asked to leave, when nothing waits on it."""
        if not self.pending:
            self.stop()
