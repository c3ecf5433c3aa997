"""The portal: one event loop on a thread of its own, for callers that have none.

What outlives a call, a connection first of all, lives on its loop; Django views,
Celery tasks, threads and greenlets share it.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple

from asgiref.sync import AsyncToSync
from django.core.exceptions import SynchronousOnlyOperation

from .handover import (
    Inbox,
    LoopWaiter,
    Setter,
    new_event_loop,
    new_waiter,
    start_native_thread,
)

__all__ = ["Portal", "is_throwaway", "new_event_loop", "portal", "refuse_inside_loop"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STOP_TIMEOUT = 2.0  # seconds that cancelled tasks have to end when the portal stops

# A loop is in this dictionary while async_to_sync() runs on it. Should a newer asgiref
# name it otherwise, every loop counts as thrown away: a hop slower, and still right.
_throwaway_loops: dict[asyncio.AbstractEventLoop, Any] | None = getattr(
    AsyncToSync, "loop_thread_executors", None
)


def is_throwaway(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a running ``loop`` was made by ``async_to_sync`` for a single call."""
    return _throwaway_loops is None or loop in _throwaway_loops


def refuse_inside_loop(verb: str, twin: str) -> None:
    """Raise ``SynchronousOnlyOperation`` where blocking would stop a running loop."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001  the only cheap way
        message = f"You cannot call {verb}() in an async context: await {twin}()."
        raise SynchronousOnlyOperation(message)


@dataclass(eq=False, slots=True)
class _Call:
    """A coroutine on the portal's loop while its caller, elsewhere, is in the block."""

    life: "_Life"
    setter: Setter[Any]
    function: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    context: Context = field(default_factory=copy_context)
    task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self.life.inbox.put(self._start)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            with contextlib.suppress(RuntimeError):  # it has ended with its loop
                self.life.inbox.put(self._cancel)

    def _start(self) -> None:
        if self.life.ending:
            self.fail()
            return
        self.life.calls.add(self)
        coroutine = self._perform()
        self.task = self.life.loop.create_task(coroutine, context=self.context)

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
            self.life.calls.discard(self)
            del self.setter  # it holds the error whose traceback holds this frame

    def fail(self) -> None:
        """Tell the caller that there will be no result; on the loop's thread."""
        # No CancelledError: to its caller that would mean the caller's own task.
        message = f"{self.function!r} was cancelled, or the portal has stopped."
        self.setter.set_exception(RuntimeError(message))

    def _cancel(self) -> None:
        self.life.calls.discard(self)  # cancelled before its first step, it will not
        if self.task is not None:
            self.task.cancel()


class _Life:
    """One loop on one thread, from the portal's first use to its end."""

    def __init__(self, ended: Callable[["_Life"], None]) -> None:
        self.loop = new_event_loop()
        self.inbox = Inbox(self.loop)
        self.calls: set[_Call] = set()
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
        for call in self.calls:
            call.fail()
        for on_end in self._on_end:
            on_end(self)

    def give_up_tasks(self) -> None:
        """Keep what will never end from being destroyed, and from complaints of it."""
        self.stubborn = asyncio.all_tasks(self.loop)
        for task in self.stubborn:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001


class Portal:
    """A loop on a daemon thread, started at first use and anew after a fork.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._life: _Life | None = None
        self._lock = threading.Lock()
        self._exiting = False
        # No WeakMethod: one that is collected with its object complains at exit.
        self._on_drop: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; ask again each time, since a fork or a stop changes it."""
        return (self._life or self._start()).loop

    def is_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether ``loop`` is the one that runs now; starts none."""
        return (life := self._life) is not None and life.loop is loop

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have the loop call ``callback``, in a context of the loop's own."""
        (self._life or self._start()).inbox.put(callback, *args)

    def run(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        timeout: float | None = None,
    ) -> T:
        """Run a coroutine on the loop, in a copy of the caller's context, and wait.

        Raises ``TimeoutError`` after ``timeout`` seconds; the coroutine is cancelled
        then, and also when the wait is interrupted.
        """
        refuse_inside_loop("portal.run", "portal.arun")
        waiter = new_waiter()
        with _Call(self._life or self._start(), waiter, function, args):
            if not waiter.wait(timeout):
                message = f"{function!r} took longer than {timeout} s."
                raise TimeoutError(message)
        result: T = waiter.result()
        return result

    async def arun(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run a coroutine on the loop, for a caller on a loop of its own.

        Cancelling the caller cancels it.
        """
        waiter: LoopWaiter[T] = LoopWaiter(asyncio.get_running_loop())
        try:
            with _Call(self._life or self._start(), waiter, function, args):
                return await waiter
        finally:
            del waiter  # it holds the error whose traceback holds this frame

    def on_drop(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when a fork or a stop took the loop away.

        A method, one for each object, which is held weakly. It must not wait.
        """
        method: Any = callback
        with self._lock:
            self._on_drop[method.__self__] = method.__func__

    def stop(self, grace: float = STOP_TIMEOUT) -> None:
        """Cancel what runs, give it ``grace`` seconds to end, and close the loop."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            if not life.stop(grace):
                logger.warning("The portal's thread is blocked: it was left behind.")
            self._tell_dropped()

    def exit(self) -> None:
        """Stop for good, since the interpreter is about to exit."""
        self._exiting = True
        self.stop()

    def drop(self) -> None:
        """Forget, in the child of a fork, the loop that runs in the parent only."""
        # Another thread may have held the lock, and it is not here to release it.
        self._lock = threading.Lock()
        life, self._life = self._life, None
        if life is not None:
            # The frames of its thread, which no longer runs, hold it for ever. That
            # must be so: collected, it would write to the parent's connections.
            life.give_up_tasks()
        # In any case: who has links on the parent's other loops must forget them too.
        self._tell_dropped()

    def _start(self) -> _Life:
        with self._lock:
            if self._exiting:
                message = "The interpreter is exiting, and the portal has stopped."
                raise RuntimeError(message)
            if self._life is None:
                self._life = _Life(self._ended)
            return self._life

    def _ended(self, life: _Life) -> None:
        # By itself, that is: stop() has forgotten it before.
        if self._life is life:
            self._life = None
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            callbacks = list(self._on_drop.items())
        for client, callback in callbacks:
            try:
                callback(client)
            except Exception:
                logger.exception("%r could not forget the portal's loop", client)


portal = Portal()
atexit.register(portal.exit)
if sys.platform != "win32":  # pragma: no branch
    os.register_at_fork(after_in_child=portal.drop)
