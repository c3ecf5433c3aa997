"""How calls reach a loop from other threads."""

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvloop

from django_microservices.concurrency.inbox import Inbox

from .work import PATIENCE, CountingLoop

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop do what is ready."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_one_wake_up_per_batch(loop: CountingLoop) -> None:
    """What is put while a wake-up is on its way needs none of its own."""
    inbox = Inbox(loop)
    seen: list[int] = []
    for number in range(100):
        inbox.put(seen.append, number)
    turn(loop)
    inbox.put(seen.append, 100)
    turn(loop)
    assert (seen, loop.wake_ups) == (list(range(101)), 2)


def test_put_by_a_callback_waits_for_the_next_turn(loop: CountingLoop) -> None:
    """A callback that puts itself again does not keep the loop from other work."""
    inbox = Inbox(loop)
    seen: list[str] = []

    def again() -> None:
        seen.append("again")
        inbox.put(again)

    inbox.put(again)
    turn(loop)
    assert (seen, loop.wake_ups) == (["again"], 1)
    turn(loop)
    assert seen == ["again"] * 2


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_is_lost_at_the_end(
    make_loop: Callable[[], asyncio.AbstractEventLoop], many_switches: None
) -> None:
    """Each put of many threads is called in order, or raises once the loop closed."""
    loop = make_loop()
    inbox = Inbox(loop)
    putters, enough = 4, 500
    seen: list[list[int]] = [[] for _ in range(putters)]
    accepted = [0] * putters
    busy = threading.Barrier(putters + 1)

    def put(putter: int) -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                inbox.put(seen[putter].append, accepted[putter])
                accepted[putter] += 1
                if accepted[putter] == enough:
                    busy.wait(PATIENCE)

    def close() -> None:
        loop.run_forever()
        loop.close()
        inbox.close()

    threads = [threading.Thread(target=put, args=(n,)) for n in range(putters)]
    threads.append(threading.Thread(target=close))
    for thread in threads:
        thread.start()
    busy.wait(PATIENCE)
    inbox.put(loop.stop)
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == [list(range(count)) for count in accepted]


def test_callbacks_do_not_see_the_putters_context(loop: CountingLoop) -> None:
    """A batch of several putters runs in the context of none of them."""
    inbox = Inbox(loop)
    seen: list[str] = []

    def put() -> None:
        VARIABLE.set("the putter's")
        inbox.put(lambda: seen.append(VARIABLE.get("none")))

    contextvars.copy_context().run(put)
    turn(loop)
    assert seen == ["none"]


def test_failing_callback_is_reported(loop: CountingLoop) -> None:
    """A callback's error goes to the loop's handler and does not stop the others."""
    inbox = Inbox(loop)
    seen: list[int] = []
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    inbox.put(divmod, 1, 0)
    inbox.put(seen.append, 1)
    turn(loop)
    assert seen == [1]
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
    assert "divmod" in reports[0]["message"]


def test_exit_in_a_callback_leaves_the_rest(loop: CountingLoop) -> None:
    """SystemExit ends the loop's run; what else was put is called in its next."""
    inbox = Inbox(loop)
    seen: list[int] = []
    inbox.put(sys.exit)
    inbox.put(seen.append, 1)
    with pytest.raises(SystemExit):
        loop.run_forever()
    turn(loop)
    assert seen == [1]


def test_put_to_a_closed_loop_raises(loop: CountingLoop) -> None:
    """The putter learns that the loop is closed, and its callback is not called."""
    inbox = Inbox(loop)
    seen: list[int] = []
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            inbox.put(seen.append, 1)
    inbox.close()
    assert seen == []


def test_close_calls_what_was_put_before(loop: CountingLoop) -> None:
    """What was put in time but not yet called is called; what comes later raises."""
    inbox = Inbox(loop)
    seen: list[str] = []
    inbox.put(seen.append, "in time")
    loop.close()
    inbox.close()
    with pytest.raises(RuntimeError, match="closed"):
        inbox.put(seen.append, "late")
    assert seen == ["in time"]


def test_close_of_a_loop_that_goes_on(loop: CountingLoop) -> None:
    """What comes after it is called all the same."""
    inbox = Inbox(loop)
    seen: list[int] = []
    inbox.put(seen.append, 1)
    inbox.close()
    assert seen == [1]
    inbox.put(seen.append, 2)
    inbox.put(seen.append, 3)
    turn(loop)
    assert (seen, loop.wake_ups) == ([1, 2, 3], 3)


def test_put_that_close_has_called_does_not_raise(loop: CountingLoop) -> None:
    """A callback that was called at the last moment counts as put."""
    inbox = Inbox(loop)
    seen: list[int] = []

    def close() -> None:
        loop.close()
        inbox.close()

    loop.before = close
    inbox.put(seen.append, 1)
    assert seen == [1]


def test_what_was_taken_back_is_passed_over(loop: CountingLoop) -> None:
    """A putter may take its item back while the others are being called."""
    inbox = Inbox(loop)
    seen: list[int] = []
    late: Callable[[], object] = partial(seen.append, 1)
    inbox.put(lambda: inbox._take_back(late))
    inbox.put(late)
    inbox.close()
    assert seen == []
