"""What async code has a thread do: calls, leases and streams."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import translation

from django_microservices.concurrency.threads import Threads

from .work import PATIENCE, Hold, fail, happens, stopping, tenant


async def test_refused_stream_raises(hold: Hold) -> None:
    """A stream that waits for a thread at the stop ends with an error."""
    async with stopping(hold) as pool:
        reader = asyncio.create_task(anext(pool.stream(Numbers())))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="are stopped"):
        await reader


class Numbers:
    """A generator that notes how far it came, where it ran and where it ended."""

    def __init__(self, count: int | None = None, tell_at: int = -1) -> None:
        self.made = 0
        self.tell_at = tell_at
        self.is_there = threading.Event()
        self.count = count
        self.threads: set[int] = set()
        self.closed_on: int | None = None

    def __call__(self) -> Iterator[int]:
        """Count."""
        try:
            for number in itertools.count():
                if number == self.count:
                    return
                self.threads.add(threading.get_ident())
                self.made += 1
                if self.made == self.tell_at:
                    self.is_there.set()
                yield number
        finally:
            self.closed_on = threading.get_ident()


async def test_items_come_in_order(single: Threads) -> None:
    """Every item arrives once, in order, however many batches they take."""
    assert [n async for n in single.stream(Numbers(1000), buffer=7)] == [*range(1000)]


async def test_generator_runs_whole_on_one_thread(threads: Threads) -> None:
    """The generator begins, goes on and ends on one thread, not the loop's."""
    numbers = Numbers(500)
    _ = [n async for n in threads.stream(numbers, buffer=2)]
    assert numbers.threads == {numbers.closed_on}
    assert numbers.closed_on != threading.get_ident()


async def test_any_iterable_will_do(single: Threads) -> None:
    """What has no close(), a list for one, streams as well."""
    assert [n async for n in single.stream(lambda: [1, 2])] == [1, 2]


async def test_full_buffer_blocks_the_producer(single: Threads) -> None:
    """A producer is never further ahead than the buffer."""
    numbers = Numbers(tell_at=8)
    stream = single.stream(numbers, buffer=8)
    assert await anext(stream) == 0
    await happens(numbers.is_there)
    for expected in range(1, 200):
        assert await anext(stream) == expected
        assert numbers.made <= expected + 1 + 8
        assert single.busy == 1
    await stream.aclose()


async def test_reader_gets_items_in_batches(
    wake_ups: list[Any], single: Threads
) -> None:
    """The loop is woken for many items at once, not for each."""
    assert len([n async for n in single.stream(Numbers(2000), buffer=64)]) == 2000
    assert len(wake_ups) < 1000


async def test_closing_wakes_and_closes_the_producer(single: Threads) -> None:
    """After aclose() the generator's finally has run, on its own thread."""
    numbers = Numbers(tell_at=5)
    stream = single.stream(numbers, buffer=4)
    await anext(stream)
    await anext(stream)
    await anext(stream)
    await happens(numbers.is_there)
    await stream.aclose()
    assert {numbers.closed_on} == numbers.threads
    assert await single.call(lambda: "next") == "next"


async def test_cancelling_the_reader_closes_the_producer(single: Threads) -> None:
    """A reader that is cancelled ends after the generator's finally has run."""
    hold = Hold()
    ended = threading.Event()

    def slow() -> Iterator[int]:
        try:
            yield 0
            hold()
            yield 1
        finally:
            ended.set()

    async def read() -> None:
        async for _ in single.stream(slow):
            pass

    reader = asyncio.create_task(read())
    await happens(hold.started)
    reader.cancel()
    await asyncio.sleep(0)
    assert not reader.done()
    hold.release.set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert ended.is_set()


async def test_cancelling_who_does_not_read_on(single: Threads) -> None:
    """A producer whose buffer stays full ends when its reader is cancelled."""
    numbers = Numbers(tell_at=4)

    async def read() -> None:
        async with contextlib.aclosing(single.stream(numbers, buffer=4)) as items:
            async for _ in items:
                await asyncio.Event().wait()

    reader = asyncio.create_task(read())
    await happens(numbers.is_there)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert {numbers.closed_on} == numbers.threads
    assert await single.call(lambda: "next") == "next"


async def test_exception_comes_after_the_items(single: Threads) -> None:
    """What the generator raises is raised behind the items that it made."""

    def broken() -> Iterator[int]:
        yield from range(3)
        message = "no more"
        raise ValueError(message)

    stream = single.stream(broken)
    assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        await anext(stream)


async def test_source_that_cannot_be_opened(single: Threads) -> None:
    """An exception of the function that makes the iterator comes to the reader."""
    with pytest.raises(ZeroDivisionError):
        await anext(single.stream(lambda: [1 // 0]))


async def test_failure_while_closing_is_logged(
    single: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of a finally block that nobody reads any more is logged."""

    def broken() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            fail(ValueError("in finally"))

    stream = single.stream(broken, buffer=1)
    await anext(stream)
    await stream.aclose()
    assert "A stream failed while it was closed" in caplog.text
    assert "in finally" in caplog.text


async def test_stream_sees_the_readers_context(single: Threads) -> None:
    """Language and variables of the reader hold in the generator."""
    tenant.set("acme")
    with translation.override("de"):
        stream = single.stream(lambda: iter([translation.get_language(), tenant.get()]))
        assert [item async for item in stream] == ["de", "acme"]


async def test_streams_wait_for_a_thread(single: Threads) -> None:
    """A stream for which no thread is free begins when one is."""
    first, second = Numbers(), Numbers(3)
    stream = single.stream(first, buffer=2)
    await anext(stream)
    rest = asyncio.create_task(anext(single.stream(second)))
    await asyncio.sleep(0)
    assert second.made == 0
    await stream.aclose()
    assert await rest == 0


async def test_closed_before_it_began(single: Threads) -> None:
    """A stream that is closed while it waits is never opened."""
    hold = Hold()
    busy = asyncio.create_task(single.call(hold))
    await happens(hold.started)
    numbers = Numbers()
    reader = asyncio.create_task(anext(single.stream(numbers)))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    hold.release.set()
    await busy
    await single.call(int)
    assert numbers.made == 0


async def test_stream_that_is_never_read(single: Threads) -> None:
    """A stream takes a thread at its first item, and so none if there is no reader."""
    numbers = Numbers()
    await single.stream(numbers).aclose()
    await single.call(int)
    assert numbers.made == 0


async def test_stream_whose_reader_left_is_abandoned() -> None:
    """A generator that hangs for a reader who closes hangs for nobody."""

    def source() -> Iterator[int]:
        yield 1
        hold()

    hold, pool = Hold(), Threads(1, asyncio.get_running_loop())
    items = pool.stream(source)
    assert await anext(items) == 1
    await happens(hold.started)
    assert pool.relieve(after=0.0) == 0
    closing = asyncio.ensure_future(items.aclose())
    await asyncio.sleep(0)
    assert pool.relieve(after=0.0) == 1
    hold.release.set()
    await closing
    assert pool.stop(PATIENCE)
