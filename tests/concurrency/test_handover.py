"""The waiters, and what greenlets change."""

import asyncio
import gc
import signal
import sys
import threading
import types
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import uvloop

from django_microservices.concurrency import handover
from django_microservices.concurrency.handover import (
    GreenletWaiter,
    LoopWaiter,
    Waiter,
    new_event_loop,
    new_waiter,
    start_native_thread,
    under_gevent,
)

from .work import CountingLoop

gevent: Any = import_module("gevent")
gevent_monkey: Any = import_module("gevent.monkey")
LONG = 20.0


def in_thread(function: Callable[[], object]) -> None:
    """Run a function on a thread of its own, and wait for that."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG)
    if errors:
        raise errors[0]


# --- Waiter ---


def test_wait_ends_with_the_result() -> None:
    """A thread that waits gets what another thread sets."""
    waiter: Waiter[int] = Waiter()
    thread = threading.Thread(target=waiter.set_result, args=(1,))
    thread.start()
    assert waiter.wait(LONG)
    assert waiter.result() == 1
    thread.join()


@pytest.mark.parametrize("kind", [Waiter, GreenletWaiter])
def test_first_outcome_counts(kind: type[Waiter[int]]) -> None:
    """Setting again changes nothing, and waiting again does not block."""
    waiter = kind()
    waiter.set_result(1)
    waiter.set_result(2)
    waiter.set_exception(ValueError())
    assert waiter.wait(None)
    assert waiter.wait(0)
    assert waiter.result() == 1


@pytest.mark.parametrize("kind", [Waiter, GreenletWaiter])
@pytest.mark.parametrize("timeout", [0.001, 0, -1, -5.0])
def test_wait_times_out(kind: type[Waiter[int]], timeout: float) -> None:
    """False says that nothing came; what comes later harms nobody."""

    def wait() -> None:
        waiter = kind()
        assert not waiter.wait(timeout)
        waiter.set_result(1)
        gevent.get_hub().destroy(destroy_loop=True)

    in_thread(wait)


def test_endless_timeout_is_accepted() -> None:
    """A timeout longer than a lock can wait is as long as it can."""
    waiter: Waiter[int] = Waiter()
    waiter.set_result(1)
    assert waiter.wait(float("inf"))


def test_error_is_raised_with_its_traceback() -> None:
    """Where an error was raised on the loop's thread is to be seen by the waiter."""
    waiter: Waiter[int] = Waiter()

    def fail_on_the_other_thread() -> None:
        try:
            waiter.set_result(1 // 0)
        except ZeroDivisionError as error:
            waiter.set_exception(error)

    in_thread(fail_on_the_other_thread)
    assert waiter.wait(LONG)
    with pytest.raises(ZeroDivisionError) as caught:
        waiter.result()
    assert "fail_on_the_other_thread" in [entry.name for entry in caught.traceback]


def test_error_makes_no_reference_cycle() -> None:
    """An error that was raised and handled is freed at once."""

    class MyError(Exception):
        pass

    def fail() -> "weakref.ref[MyError]":
        waiter: Waiter[int] = Waiter()
        waiter.set_exception(MyError())
        try:
            waiter.result()
        except MyError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()


def test_interrupted_wait_can_be_repeated(interrupted: threading.Event) -> None:
    """KeyboardInterrupt ends the wait and leaves the waiter as it was."""
    waiter: Waiter[int] = Waiter()
    main = threading.get_ident()

    def interrupt() -> None:
        while not interrupted.wait(0.01):
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        thread.start()
        waiter.wait(LONG)
    thread.join()
    assert not waiter.wait(0)
    waiter.set_result(1)
    assert waiter.wait(0)


# --- gevent and eventlet ---


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it seem as if gevent had patched threading."""
    monkeypatch.setattr(gevent_monkey, "is_module_patched", lambda _: True)


def test_greenlets_run_while_one_waits() -> None:
    """A waiting greenlet leaves its thread to others, and a native thread wakes it."""
    seen: list[object] = []

    def wait_and_count() -> None:
        waiter = GreenletWaiter[str]()
        waiting = gevent.spawn(waiter.wait, LONG)
        gevent.sleep(0)
        seen.append("another greenlet")
        threading.Thread(target=waiter.set_result, args=("value",)).start()
        seen.append(waiting.get())
        seen.append(waiter.result())
        gevent.get_hub().destroy(destroy_loop=True)

    in_thread(wait_and_count)
    assert seen == ["another greenlet", True, "value"]


def test_waiter_fits_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greenlets wait with gevent, threads with a lock; also where gevent is absent."""
    assert type(new_waiter()) is Waiter
    monkeypatch.setattr(gevent_monkey, "is_module_patched", lambda _: True)
    assert type(new_waiter()) is GreenletWaiter
    monkeypatch.delitem(sys.modules, "gevent.monkey")
    assert not under_gevent()


def test_thread_is_native_under_gevent(patched: None) -> None:
    """The portal's thread is a thread of the system, whatever gevent has patched."""
    waiter: Waiter[int] = Waiter()
    start_native_thread(lambda: waiter.set_result(threading.get_native_id()), "name")
    assert waiter.wait(LONG)
    assert waiter.result() != threading.get_native_id()


def test_thread_is_named() -> None:
    """Without gevent the thread has a name and does not hold up the process's end."""
    waiter: Waiter[threading.Thread] = Waiter()
    start_native_thread(lambda: waiter.set_result(threading.current_thread()), "name")
    assert waiter.wait(LONG)
    thread = waiter.result()
    assert (thread.name, thread.daemon) == ("name", True)


def test_loop_is_uvloops(patched: None) -> None:
    """Where uvloop is installed, it makes the loop; under gevent too."""
    loop = new_event_loop()
    loop.close()
    assert isinstance(loop, uvloop.Loop)


def test_loop_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where uvloop is not installed, asyncio makes the loop."""
    monkeypatch.setattr(handover, "_uvloop", None)
    loop = new_event_loop()
    loop.close()
    assert isinstance(loop, asyncio.SelectorEventLoop)


def test_gevent_needs_uvloop(patched: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under gevent without uvloop the error says what to install."""
    monkeypatch.setattr(handover, "_uvloop", None)
    with pytest.raises(RuntimeError, match="uvloop"):
        new_event_loop()


def test_eventlet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eventlet's patch is refused with a clear error; its mere import is not."""
    patched: set[str] = set()
    patcher: Any = types.SimpleNamespace(is_monkey_patched=patched.__contains__)
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    new_event_loop().close()
    patched.add("thread")
    with pytest.raises(RuntimeError, match="eventlet"):
        new_event_loop()


# --- LoopWaiter ---


async def test_loop_awaits_what_a_thread_sets() -> None:
    """A value set on another thread is awaited; the first one counts."""
    waiter: LoopWaiter[int] = LoopWaiter(asyncio.get_running_loop())
    in_thread(lambda: waiter.set_result(1))
    in_thread(lambda: waiter.set_exception(ValueError()))
    assert await waiter == 1


async def test_loop_awaits_an_error() -> None:
    """An error set on another thread is raised where it is awaited."""
    waiter: LoopWaiter[int] = LoopWaiter(asyncio.get_running_loop())
    in_thread(lambda: waiter.set_exception(ValueError("mine")))
    with pytest.raises(ValueError, match="mine"):
        await waiter


def test_closed_loop_needs_no_outcome(loop: CountingLoop) -> None:
    """Setting a waiter whose loop is closed does nothing."""
    waiter: LoopWaiter[int] = LoopWaiter(loop)
    loop.close()
    waiter.set_result(1)
