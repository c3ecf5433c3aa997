"""The portal: one event loop on a thread of its own, for callers that have none.

What outlives a call, a connection first of all, lives on its loop; Django views,
Celery tasks, threads and greenlets share it.
"""

import asyncio
import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

from asgiref.sync import AsyncToSync
from django.core.exceptions import SynchronousOnlyOperation

from .handover import LoopWaiter, new_waiter
from .loop_thread import STOP_TIMEOUT, LoopThread, Visit

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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


class Portal:
    """A loop on a daemon thread, started at first use and anew after a fork.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()
        self._exiting = False
        # No WeakMethod: one that is collected with its object complains at exit.
        self._on_drop: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; ask again each time, since a fork or a stop changes it."""
        return (self._thread or self._start()).loop

    def is_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether ``loop`` is the one that runs now; starts none."""
        return (thread := self._thread) is not None and thread.loop is loop

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have the loop call ``callback``, in a context of the loop's own."""
        (self._thread or self._start()).inbox.put(callback, *args)

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
        with Visit(self._thread or self._start(), waiter, function, args):
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
            with Visit(self._thread or self._start(), waiter, function, args):
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
            thread, self._thread = self._thread, None
        if thread is not None:
            if not thread.stop(grace):
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
        thread, self._thread = self._thread, None
        if thread is not None:
            # The frames of its thread, which no longer runs, hold it for ever. That
            # must be so: collected, it would write to the parent's connections.
            thread.give_up_tasks()
        # In any case: who has links on the parent's other loops must forget them too.
        self._tell_dropped()

    def _start(self) -> LoopThread:
        with self._lock:
            if self._exiting:
                message = "The interpreter is exiting, and the portal has stopped."
                raise RuntimeError(message)
            if self._thread is None:
                self._thread = LoopThread(self._ended)
            return self._thread

    def _ended(self, thread: LoopThread) -> None:
        # By itself, that is: stop() has forgotten it before.
        if self._thread is thread:
            self._thread = None
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
