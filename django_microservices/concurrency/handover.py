"""How outcomes cross between threads and event loops, and what greenlets change."""

import asyncio
import contextlib
import sys
import threading
from _thread import TIMEOUT_MAX, allocate_lock
from collections.abc import Callable, Generator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# At import, and not at first use: a fork in the midst of it would hang the child.
_uvloop = import_module("uvloop") if find_spec("uvloop") else None


class Setter(Protocol[T_contra]):
    """What takes the outcome of a call; the first one given counts."""

    def set_result(self, value: T_contra) -> None:
        """It ended with ``value``."""

    def set_exception(self, error: BaseException) -> None:
        """It ended with ``error``."""


class Waiter(Generic[T]):
    """One outcome, for which a thread waits and which a loop's thread sets.

    Set it on one thread only. Setting it again, or when nobody waits any more, does
    nothing.
    """

    __slots__ = ("_done", "_error", "_lock", "_value")

    _value: T

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self._lock = allocate_lock()
        self._lock.acquire()

    def wait(self, timeout: float | None = None) -> bool:
        """Block for at most ``timeout`` seconds; whether the outcome is there."""
        seconds = -1 if timeout is None else min(max(timeout, 0.0), TIMEOUT_MAX)
        return self._done or self._lock.acquire(timeout=seconds)

    def result(self) -> T:
        """Give the value or raise the error, once, after ``wait()`` gave True."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            # The error's traceback holds this frame: no cycle for the collector.
            del error

    def set_result(self, value: T) -> None:
        """End the wait with ``value``."""
        if not self._done:
            self._value = value
            self._finish()

    def set_exception(self, error: BaseException) -> None:
        """End the wait with ``error``, raised with the traceback that it has."""
        if not self._done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self._done = True
        self._lock.release()


class GreenletWaiter(Waiter[T]):
    """One outcome, for which a greenlet waits while the others of its thread run."""

    # gevent's async watcher is the one thing of it that another thread may touch, and
    # only while it is open. The lock, held for microseconds, is a native one: it is
    # between the hub's thread and the loop's.

    __slots__ = ("_watcher",)

    def __init__(self) -> None:
        self._done = False
        self._error = None
        self._lock = _original("allocate_lock")()
        self._watcher: Any = None

    def wait(self, timeout: float | None = None) -> bool:
        """Let other greenlets run for at most ``timeout`` seconds; True if set."""
        event = import_module("gevent.event").Event()
        with self._lock:
            if self._done:
                return True
            self._watcher = import_module("gevent").get_hub().loop.async_()
            self._watcher.start(event.set)
        try:
            return bool(event.wait(timeout if timeout is None else max(timeout, 0.0)))
        finally:
            with self._lock:
                self._watcher.stop()
                self._watcher.close()
                self._watcher = None

    def _finish(self) -> None:
        with self._lock:
            self._done = True
            if self._watcher is not None:
                self._watcher.send()


class LoopWaiter(Generic[T]):
    """One outcome, awaited on ``loop`` and set on the thread of another loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[T] = loop.create_future()

    def __await__(self) -> Generator[Any, None, T]:
        return self._future.__await__()

    def set_result(self, value: T) -> None:
        """End the wait with ``value``."""
        self._hand_over(self._future.set_result, value)

    def set_exception(self, error: BaseException) -> None:
        """End the wait with ``error``."""
        self._hand_over(self._future.set_exception, error)

    def _hand_over(self, setter: Callable[[Any], None], outcome: object) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set, setter, outcome)

    def _set(self, setter: Callable[[Any], None], outcome: object) -> None:
        if not self._future.done():
            setter(outcome)


def new_waiter() -> Waiter[Any]:
    """Make what the calling thread, or greenlet under gevent, can wait with."""
    return GreenletWaiter() if under_gevent() else Waiter()


def under_gevent() -> bool:
    """Whether gevent has replaced the threads of this process by greenlets."""
    # Asked each time: a patch may come late. What patches is imported by then.
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_native_thread(target: Callable[[], object], name: str) -> None:
    """Run ``target`` on a daemon thread, which is no greenlet under gevent either."""
    if under_gevent():
        _original("start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


def _original(name: str) -> Any:
    return sys.modules["gevent.monkey"].get_original("_thread", name)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make a loop: uvloop's where that is installed, else asyncio's.

    Raises ``RuntimeError`` where greenlets would break it: under eventlet always, under
    gevent without uvloop.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        message = "Clients do not work under eventlet: use threads or gevent."
        raise RuntimeError(message)
    if _uvloop is None and under_gevent():
        message = "Under gevent clients need uvloop: install the extra 'uvloop'."
        raise RuntimeError(message)
    loop: asyncio.AbstractEventLoop = (_uvloop or asyncio).new_event_loop()
    return loop
