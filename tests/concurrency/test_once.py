"""A value that is made once, whoever asks first."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async

from django_microservices.concurrency.once import Once

PATIENCE = 10.0


class Maker:
    """Counts how often it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        """Make a number."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop()
        return self.calls

    async def later(self) -> int:
        """Make a number, after a turn of the loop."""
        await asyncio.sleep(0)
        return self()


def test_value() -> None:
    """What was made is kept."""
    once: Once[int] = Once(Maker())
    assert [once.get(), once.get()] == [1, 1]


def test_taken() -> None:
    """What was made may be read into something else, once."""
    taken: list[int] = []

    def take(made: int) -> str:
        taken.append(made)
        return str(made)

    once = Once(Maker(), take)
    assert [once.get(), once.get()] == ["1", "1"]
    assert taken == [1]


async def test_value_for_tasks() -> None:
    """Tasks share one value, made by the first of them."""
    maker = Maker()
    once: Once[int] = Once(maker.later)
    assert await asyncio.gather(*(once.aget() for _ in range(10))) == [1] * 10


async def test_sync_maker_for_tasks() -> None:
    """A maker that is not async serves tasks as well."""
    assert await Once(Maker()).aget() == 1


def test_async_maker_for_threads() -> None:
    """Threads share one value that is made by a coroutine."""
    maker = Maker()
    once: Once[int] = Once(maker.later)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: once.get(), range(8))) == [1] * 8


async def test_threads_and_tasks_together() -> None:
    """A task waits for the thread that makes the value, and the loop goes on."""
    making, made = threading.Event(), threading.Event()

    def make() -> int:
        making.set()
        assert made.wait(PATIENCE)
        return 7

    once: Once[int] = Once(make)
    thread = asyncio.ensure_future(sync_to_async(once.get, thread_sensitive=False)())
    await sync_to_async(making.wait)(PATIENCE)
    task = asyncio.ensure_future(once.aget())
    await asyncio.sleep(0)
    made.set()
    assert [await thread, await task] == [7, 7]


def test_error_is_not_kept() -> None:
    """After an error the next one who asks makes it anew."""
    once: Once[int] = Once(Maker(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        once.get()
    assert once.get() == 2


async def test_error_leaves_no_lock_behind() -> None:
    """After an error in a task, another task is served."""
    once: Once[int] = Once(Maker(ZeroDivisionError()).later)
    with pytest.raises(ZeroDivisionError):
        await once.aget()
    assert await once.aget() == 2
