"""A loop on a thread of its own: how it stops, and what that leaves behind."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_microservices.concurrency import loop_thread
from django_microservices.concurrency.portal import Portal

from .visits import LONG, Stubborn, double, join_threads


def test_call_that_comes_while_stopping_fails(portal: Portal) -> None:
    """A call that is put at the last moment is told so, rather than left waiting."""
    portal.run(double, 1)
    assert portal._thread is not None
    portal._thread.ending = True
    with pytest.raises(RuntimeError, match="the portal has stopped"):
        portal.run(double, 1)


def test_call_given_up_while_stopping(portal: Portal) -> None:
    """A call that never began, since the portal stops, may be given up as well."""
    go_on, done = threading.Event(), threading.Event()
    portal.call_soon(go_on.wait, LONG)
    assert portal._thread is not None
    portal._thread.ending = True
    with pytest.raises(TimeoutError):
        portal.run(double, 1, timeout=0)
    go_on.set()
    portal.call_soon(done.set)
    assert done.wait(LONG)


def test_stop_leaves_the_stubborn(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that does not end is given up and logged, and its caller is told."""
    stubborn = Stubborn()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.run, stubborn)
        assert stubborn.started.wait(LONG)
        portal.stop(grace=0.05)
        with pytest.raises(RuntimeError, match="the portal has stopped"):
            waiting.result(LONG)
    assert "Cancelled tasks did not end" in caplog.text


@pytest.mark.parametrize("ends", [True, False])
def test_stop_closes_generators(portal: Portal, *, ends: bool) -> None:
    """Async generators left open are closed, within the time that stopping has."""
    closed = threading.Event()
    kept: list[AsyncIterator[int]] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()
            if not ends:
                await asyncio.get_running_loop().create_future()

    async def begin() -> int:
        kept.append(numbers())
        return await anext(kept[0])

    assert portal.run(begin) == 1
    portal.stop(grace=LONG if ends else 0.05)
    assert closed.is_set()


def test_stop_leaves_a_blocked_thread(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that blocks the loop does not hold up who stops it."""
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(LONG)

    portal.call_soon(block)
    assert blocked.wait(LONG)
    portal.stop(grace=-1)
    go_on.set()
    join_threads()
    assert "thread is blocked" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_portal_that_ended_by_itself_starts_anew(portal: Portal) -> None:
    """A callback that exits ends the loop; clients are told, the next call works."""
    loop, dropped = portal.loop, threading.Event()
    portal.on_drop(dropped.set)
    portal.call_soon(sys.exit)
    assert dropped.wait(LONG)
    assert loop.is_closed()
    join_threads()
    assert portal.run(double, 1) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stop_of_what_has_ended(portal: Portal) -> None:
    """Stopping a loop that ends by itself at the same moment is no error."""
    portal.run(double, 1)
    thread = portal._thread
    assert thread is not None
    portal.call_soon(sys.exit)
    join_threads()
    portal._thread = thread
    portal.stop()
    assert portal._thread is None


def test_no_thread_to_be_had(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no thread left, the next call tries again."""

    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(loop_thread, "start_native_thread", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            portal.run(double, 1)
    assert portal.run(double, 1) == 2
