"""What async code has a thread do: calls, leases and streams."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.utils import timezone, translation

from django_microservices.concurrency.streams import Lease
from django_microservices.concurrency.threads import Threads

PATIENCE = 10.0

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest_asyncio.fixture
async def single() -> AsyncIterator[Threads]:
    """Give a pool of one thread."""
    pool = Threads(1, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[Threads]:
    """Give a pool of two."""
    pool = Threads(2, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


class Hold:
    """Keeps a thread busy until it is released."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> None:
        """Wait on the pool's thread."""
        self.started.set()
        assert self.release.wait(PATIENCE)


async def happens(event: threading.Event) -> None:
    """Wait for a thread's event without blocking the loop."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


def fail(error: BaseException) -> None:
    """Raise ``error``."""
    raise error


# --- calls ------------------------------------------------------------------------


async def test_call_raises_what_the_function_raised(single: Threads) -> None:
    """An exception comes back to the caller, and the thread goes on."""
    with pytest.raises(ValueError, match="no"):
        await single.call(fail, ValueError("no"))
    assert await single.call(lambda: "next") == "next"


async def test_call_survives_stop_iteration(single: Threads) -> None:
    """StopIteration, which no coroutine may raise, becomes a RuntimeError."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await single.call(fail, StopIteration())


async def test_call_sees_the_callers_context(single: Threads) -> None:
    """Language, time zone and variables of the caller hold on the thread."""
    tenant.set("acme")
    with translation.override("de"), timezone.override("Europe/Berlin"):
        assert await single.call(translation.get_language) == "de"
        assert await single.call(timezone.get_current_timezone_name) == "Europe/Berlin"
        assert await single.call(tenant.get) == "acme"


async def test_call_brings_changes_back(single: Threads) -> None:
    """What the function sets is set for the caller, as with sync_to_async."""
    await single.call(tenant.set, "acme")
    await single.call(translation.activate, "de")
    assert tenant.get() == "acme"
    assert translation.get_language() == "de"


async def test_call_leaves_nothing_for_the_next_caller(single: Threads) -> None:
    """What one task's call sets is not another task's."""
    await asyncio.create_task(single.call(translation.activate, "de"))
    assert await single.call(translation.get_language) == "en"


async def test_call_uses_the_threads_cache(single: Threads) -> None:
    """The cache object is the thread's own, call after call, not the caller's."""
    callers = caches["default"]
    first = await asyncio.create_task(single.call(lambda: caches["default"]))
    second = await single.call(lambda: caches["default"])
    assert first is second
    assert first is not callers
    assert caches["default"] is callers


async def test_cancelled_call_never_starts(single: Threads) -> None:
    """A function whose caller was cancelled while it waited is not called."""
    hold = Hold()
    first = asyncio.create_task(single.call(hold))
    await happens(hold.started)
    called: list[int] = []
    second = asyncio.create_task(single.call(called.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    hold.release.set()
    await first
    await single.call(int)
    assert called == []


async def test_cancelled_call_leaves_the_thread_working(
    single: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller that is cancelled goes at once; a later failure is logged."""
    hold = Hold()

    def late() -> None:
        hold()
        fail(ValueError("late"))

    call = asyncio.create_task(single.call(late))
    await happens(hold.started)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    hold.release.set()
    assert await single.call(lambda: "next") == "next"
    assert "A call failed after its caller left" in caplog.text


async def test_cancelled_call_may_succeed(
    single: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """The late result of a cancelled call is dropped without a word."""
    hold = Hold()
    call = asyncio.create_task(single.call(hold))
    await happens(hold.started)
    call.cancel()
    hold.release.set()
    assert await single.call(lambda: "next") == "next"
    assert caplog.text == ""


# --- leases -----------------------------------------------------------------------


async def test_lease_is_one_thread(threads: Threads) -> None:
    """Every piece of thread-sensitive code in a block runs on the same thread."""
    current = sync_to_async(threading.current_thread)
    async with threads.database_thread():
        seen = {await current() for _ in range(10)}
    assert len(seen) == 1
    assert seen.pop().name.startswith("microservice-sync-")


async def test_leases_run_side_by_side(threads: Threads) -> None:
    """Blocks of different tasks have different threads."""
    meeting = threading.Barrier(2, timeout=PATIENCE)

    async def handler() -> int:
        async with threads.database_thread():
            return await sync_to_async(meeting.wait)()

    assert sorted(await asyncio.gather(handler(), handler())) == [0, 1]


async def test_lease_ends_with_the_block(single: Threads) -> None:
    """The thread is free again after the block."""
    for _ in range(3):
        async with single.database_thread():
            await sync_to_async(int)()
        assert await single.call(lambda: "next") == "next"


async def test_unused_lease_takes_no_thread(single: Threads) -> None:
    """A block that never uses the database holds no thread."""
    async with single.database_thread():
        assert await single.call(lambda: "next") == "next"


async def test_lease_raises_what_the_code_raised(single: Threads) -> None:
    """An exception comes back through the block."""
    with pytest.raises(ValueError, match="no"):
        async with single.database_thread():
            await sync_to_async(fail)(ValueError("no"))


async def test_cancelled_code_of_a_lease_never_starts(single: Threads) -> None:
    """A call that was cancelled before its turn is left out."""
    lease = Lease(single.submit)
    hold = Hold()
    first = lease.submit(hold)
    called: list[int] = []
    second = lease.submit(called.append, 1)
    assert second.cancel()
    hold.release.set()
    lease.give_back()
    await asyncio.wrap_future(first)
    await single.call(int)
    assert called == []


@pytest.fixture
def refused() -> Hold:
    """Give what keeps the thread busy while the pool stops."""
    return Hold()


@contextlib.asynccontextmanager
async def stopping(hold: Hold) -> AsyncIterator[Threads]:
    """Give a pool whose only thread is busy, and stop it after the block."""
    pool = Threads(1, asyncio.get_running_loop())
    busy = asyncio.create_task(pool.call(hold))
    await happens(hold.started)
    yield pool
    assert not pool.stop(0.0)
    hold.release.set()
    assert pool.stop(PATIENCE)
    await busy


async def test_refused_call_raises(refused: Hold) -> None:
    """A call that waits for a thread at the stop ends with an error."""
    async with stopping(refused) as pool:
        call = asyncio.create_task(pool.call(int))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="are stopped"):
        await call


async def test_refused_lease_raises(refused: Hold) -> None:
    """Calls of a lease that waits for a thread at the stop end with an error."""
    async with stopping(refused) as pool:
        lease = Lease(pool.submit)
        waiting, cancelled = lease.submit(int), lease.submit(int)
        cancelled.cancel()
        lease.give_back()
    with pytest.raises(RuntimeError, match="are stopped"):
        waiting.result(PATIENCE)
    with pytest.raises(RuntimeError, match="are stopped"):
        lease.submit(int)


async def test_refused_stream_raises(refused: Hold) -> None:
    """A stream that waits for a thread at the stop ends with an error."""
    async with stopping(refused) as pool:
        reader = asyncio.create_task(anext(pool.stream(Numbers())))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="are stopped"):
        await reader


# --- streams ----------------------------------------------------------------------


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
    single: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is woken for many items at once, not for each."""
    loop = asyncio.get_running_loop()
    wake_ups = []
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
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


# --- nobody waits any more --------------------------------------------------------


async def test_call_whose_caller_left_is_abandoned() -> None:
    """A function that hangs for a caller who was cancelled hangs for nobody."""
    hold, pool = Hold(), Threads(1, asyncio.get_running_loop())
    calling = asyncio.ensure_future(pool.call(hold))
    await happens(hold.started)
    assert pool.relieve(after=0.0) == 0
    calling.cancel()
    await asyncio.wait([calling])
    assert pool.relieve(after=0.0) == 1
    hold.release.set()
    assert pool.stop(PATIENCE)


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
