"""An event loop on a thread of its own, and those who visit it from elsewhere."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from .handover import Setter, new_event_loop, new_waiter, start_native_thread
from .inbox import Inbox

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 2.0  # seconds that cancelled tasks have to end


@dataclass(eq=False, slots=True)
class Visit:
    """A coroutine on the portal's loop while its caller, elsewhere, is in the block."""

    thread: "LoopThread"
    setter: Setter[Any]
    function: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    context: Context = field(default_factory=copy_context)
    task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self.thread.inbox.put(self._start)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            with contextlib.suppress(RuntimeError):  # it has ended with its loop
                self.thread.inbox.put(self._cancel)

    def _start(self) -> None:
        if self.thread.ending:
            self.fail()
            return
        self.thread.visits.add(self)
        coroutine = self._perform()
        self.task = self.thread.loop.create_task(coroutine, context=self.context)

    async def _perform(self) -> None:
        try:
            value = await self.function(*self.args)
        except asyncio.CancelledError:
            self.fail()
            raise
        except BaseException as error:  # noqa: BLE001  its caller gets it
            self.setter.set_exception(error)
        else:
            self.setter.set_result(value)
        finally:
            self.thread.visits.discard(self)
            del self.setter  # it holds the error whose traceback holds this frame

    def fail(self) -> None:
        """Tell the caller that there will be no result; on the loop's thread."""
        # No CancelledError: to its caller that would mean the caller's own task.
        message = f"{self.function!r} was cancelled, or the portal has stopped."
        self.setter.set_exception(RuntimeError(message))

    def _cancel(self) -> None:
        self.thread.visits.discard(self)  # cancelled before its first step, it will not
        if self.task is not None:
            self.task.cancel()


class LoopThread:
    """One loop on one thread, from the portal's first use to its end.

    ``ended(it)`` is called on the thread, last of all.
    """

    def __init__(self, ended: Callable[["LoopThread"], None]) -> None:
        self.loop = new_event_loop()
        self.inbox = Inbox(self.loop)
        self.visits: set[Visit] = set()
        self.ending = False
        self.stubborn: set[asyncio.Task[Any]] = set()
        self._grace = STOP_TIMEOUT
        self._on_end = [ended]
        try:
            start_native_thread(self._run, "microservices-portal")
        except RuntimeError:  # there are too many threads
            self.loop.close()
            raise

    def stop(self, grace: float) -> bool:
        """End it and wait for that; whether the thread ended in time."""
        waiter = new_waiter()
        self._grace = grace
        try:
            self.inbox.put(self._on_end.append, waiter.set_result)
            self.inbox.put(self.loop.stop)
        except RuntimeError:
            return True  # it has ended by itself
        return waiter.wait(grace + 1)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.ending = True
            try:
                self.loop.run_until_complete(self._end_tasks())
            finally:
                self._close()

    async def _end_tasks(self) -> None:
        deadline = self.loop.time() + self._grace
        this = {asyncio.current_task()}
        while (tasks := asyncio.all_tasks() - this) and self.loop.time() < deadline:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=deadline - self.loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self.loop.shutdown_asyncgens()

    def _close(self) -> None:
        self.give_up_tasks()
        if self.stubborn:
            logger.warning("Cancelled tasks did not end: %s", self.stubborn)
        self.loop.close()
        self.inbox.close()
        for visit in self.visits:
            visit.fail()
        for on_end in self._on_end:
            on_end(self)

    def give_up_tasks(self) -> None:
        """Keep what will never end from being destroyed, and from complaints of it."""
        self.stubborn = asyncio.all_tasks(self.loop)
        for task in self.stubborn:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
