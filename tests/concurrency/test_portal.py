"""The portal: callers of every kind."""

import asyncio
import contextlib
import contextvars
import gc
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_microservices.concurrency import portal as portal_module
from django_microservices.concurrency.portal import (
    Portal,
    is_throwaway,
    refuse_inside_loop,
)

from .visits import LONG, THREAD, Forever, double, fail_over_there

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


# --- run ---


def test_run_gives_the_result(portal: Portal) -> None:
    """A sync caller gets what the coroutine returned on the portal's loop."""
    assert portal.run(double, 2) == 4


def test_many_threads_call_at_once(portal: Portal) -> None:
    """Threads that start at one moment share one loop, and each gets its answers."""
    threads, calls = 16, 100
    together = threading.Barrier(threads)

    def work(thread: int) -> tuple[list[int], asyncio.AbstractEventLoop]:
        together.wait(LONG)
        answers = [portal.run(double, thread * calls + n) for n in range(calls)]
        return answers, portal.loop

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(work, range(threads)))
    answers = [answer for part, _ in results for answer in part]
    assert answers == [2 * n for n in range(threads * calls)]
    assert {loop for _, loop in results} == {portal.loop}


def test_error_keeps_its_traceback(portal: Portal) -> None:
    """What the coroutine raised is raised to the caller, who sees where."""
    with pytest.raises(ZeroDivisionError) as caught:
        portal.run(fail_over_there)
    assert caught.traceback[-1].name == "fail_over_there"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_goes_to_the_caller(portal: Portal, kind: type[BaseException]) -> None:
    """A coroutine that wants to exit does not end the portal, but its caller."""

    async def leave() -> None:
        raise kind

    loop = portal.loop
    with pytest.raises(kind):
        portal.run(leave)
    assert portal.loop is loop


def test_error_makes_no_reference_cycle(portal: Portal) -> None:
    """An error that was raised and handled is freed without the collector."""
    errors: list[weakref.ref[Exception]] = []

    class MyError(Exception):
        pass

    async def fail() -> None:
        error = MyError()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with contextlib.suppress(MyError):
            portal.run(fail)
        portal.run(double, 1)  # by now the other thread has left the call's frames
        assert errors[0]() is None
    finally:
        gc.enable()


def test_coroutine_runs_in_the_callers_context(portal: Portal) -> None:
    """Context variables are seen there; what is set there stays there."""

    async def change() -> str:
        before = VARIABLE.get()
        VARIABLE.set("the coroutine's")
        return before

    def call() -> tuple[str, str]:
        VARIABLE.set("the caller's")
        return portal.run(change), VARIABLE.get()

    answer = contextvars.copy_context().run(call)
    assert answer == ("the caller's", "the caller's")


def test_timeout_cancels(portal: Portal) -> None:
    """The caller gets TimeoutError in time, and the coroutine is cancelled."""
    forever = Forever()
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        portal.run(forever, timeout=0.05)
    assert forever.cancelled.wait(LONG)


def test_timeout_before_the_start_leaves_nothing(portal: Portal) -> None:
    """A call that is given up before it began is forgotten."""
    go_on = threading.Event()
    portal.call_soon(go_on.wait, LONG)
    with pytest.raises(TimeoutError):
        portal.run(double, 1, timeout=0)
    go_on.set()
    portal.run(double, 1)
    assert portal._thread is not None
    assert not portal._thread.visits


def test_interrupt_cancels(portal: Portal, interrupted: threading.Event) -> None:
    """KeyboardInterrupt ends the wait and cancels the coroutine."""
    cancelled, main = threading.Event(), threading.get_ident()

    async def interrupt() -> None:
        try:
            while True:
                signal.pthread_kill(main, signal.SIGINT)
                await asyncio.sleep(0.01)
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        portal.run(interrupt)
    assert cancelled.wait(LONG)
    assert portal.run(double, 1) == 2


def test_cancelled_coroutine_is_no_cancelled_caller(portal: Portal) -> None:
    """A coroutine that is cancelled over there is a RuntimeError to its caller."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled"):
        portal.run(cancelled)


async def test_run_is_refused_inside_a_loop(portal: Portal) -> None:
    """To block a running loop is refused, with the twin's name."""
    with pytest.raises(SynchronousOnlyOperation, match=r"await portal\.arun\(\)"):
        portal.run(double, 1)


async def test_sync_verb_is_refused_inside_a_loop() -> None:
    """The error names the verb and its twin."""
    with pytest.raises(SynchronousOnlyOperation, match=r"send\(\).*await asend\(\)"):
        refuse_inside_loop("send", "asend")


def test_sync_verb_is_allowed_outside() -> None:
    """Where no loop runs, nothing is refused."""
    refuse_inside_loop("send", "asend")


def test_call_soon_calls_on_the_loops_thread(portal: Portal) -> None:
    """A plain callback runs on the portal's thread, with its arguments."""
    called = threading.Event()
    names: list[str] = []

    def call(prefix: str) -> None:
        names.append(prefix + threading.current_thread().name)
        called.set()

    portal.call_soon(call, "on ")
    assert called.wait(LONG)
    assert names == ["on " + THREAD]


def test_is_loop(portal: Portal) -> None:
    """Asking whether a loop is the portal's does not start it."""
    other = asyncio.new_event_loop()
    other.close()
    assert not portal.is_loop(other)
    assert portal._thread is None
    assert portal.is_loop(portal.loop)


# --- arun, and loops that are thrown away ---


def test_async_to_sync_callers_share_the_loop(portal: Portal) -> None:
    """Calls on several throw-away loops all run on the portal's loop."""

    async def over_there() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def here() -> tuple[bool, asyncio.AbstractEventLoop]:
        throwaway = is_throwaway(asyncio.get_running_loop())
        return throwaway, await portal.arun(over_there)

    for _ in range(3):
        assert async_to_sync(here)() == (True, portal.loop)


async def test_lasting_loop_is_not_throwaway() -> None:
    """A loop that asgiref did not make lasts, also for sync code below it."""

    @sync_to_async
    def below() -> bool:
        return async_to_sync(above)()

    async def above() -> bool:
        return is_throwaway(asyncio.get_running_loop())

    assert not await above()
    assert not await below()


async def test_unknown_asgiref(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asgiref does not tell, each loop goes the way that is always right."""
    monkeypatch.setattr(portal_module, "_throwaway_loops", None)
    assert is_throwaway(asyncio.get_running_loop())


async def test_arun_raises_the_error(portal: Portal) -> None:
    """An async caller gets the coroutine's error."""
    with pytest.raises(ZeroDivisionError):
        await portal.arun(fail_over_there)


async def test_cancelling_arun_cancels(portal: Portal) -> None:
    """When the caller is cancelled, so is what runs for it on the portal's loop."""
    forever = Forever()
    caller = asyncio.ensure_future(portal.arun(forever))
    await asyncio.to_thread(forever.started.wait, LONG)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(forever.cancelled.wait, LONG)
