"""How values cross between threads and event loops, and what greenlets change."""

import asyncio
import contextlib
import sys
import threading
from _thread import TIMEOUT_MAX, allocate_lock
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Ts = TypeVarTuple("Ts")

# At import, and not at first use: a fork in the midst of it would hang the child.
_uvloop = import_module("uvloop") if find_spec("uvloop") else None

Item = tuple[Callable[..., object], tuple[Any, ...]]


class Inbox:
    """Calls that other threads put to ``loop``: one wake-up for all that are waiting.

    They run in the order in which they were put, each in the loop's own context and
    not in its putter's.
    """

    # Nothing is locked: under the GIL each step below is atomic. A putter appends and
    # then reads the flag; the drain clears the flag and then looks at the queue. So
    # either the drain's last look finds the item, or its putter finds the flag cleared
    # and wakes the loop. Two putters may both find it cleared, which costs one empty
    # drain. At the end of a loop the pairs are the same with is_closed() as the flag:
    # either close()'s last look finds the item, or its putter finds the loop closed
    # and takes the item back.

    __slots__ = ("_context", "_items", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._scheduled = False
        # Given to every wake-up, which else would copy the context of its putter.
        self._context = Context()

    def put(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have the loop call ``callback``; from any thread.

        Raises ``RuntimeError`` when the loop is closed, and then never calls it.
        """
        item = (callback, args)
        self._items.append(item)
        if not self._scheduled or self._loop.is_closed():
            self._wake(item)

    def close(self) -> None:
        """Call what is still waiting; after the loop was closed, on its thread."""
        while self._items:
            self._run_next()

    def _wake(self, item: Item) -> None:
        self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._drain, context=self._context)
        except RuntimeError:
            if self._take_back(item):
                raise

    def _take_back(self, item: Item) -> bool:
        try:
            self._items.remove(item)
        except ValueError:
            return False  # close() has called it
        return True

    def _drain(self) -> None:
        try:
            # What comes meanwhile waits for the loop's next turn, as with call_soon.
            for _ in range(len(self._items)):
                self._run_next()
        finally:
            self._scheduled = False
            if self._items:
                self._scheduled = True
                self._loop.call_soon(self._drain, context=self._context)

    def _run_next(self) -> None:
        try:
            callback, args = self._items.popleft()
        except IndexError:
            return  # its putter took it back between our look and now
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  as the loop does with a callback
            message = f"Exception in {callback!r}, put to the loop by another thread"
            context = {"message": message, "exception": error}
            self._loop.call_exception_handler(context)


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
