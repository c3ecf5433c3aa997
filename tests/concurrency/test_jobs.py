"""Calls and leases: what async code has a thread do."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.utils import timezone, translation

from django_microservices.concurrency.jobs import Lease
from django_microservices.concurrency.threads import Threads

from .work import PATIENCE, Hold, fail, happens, stopping, tenant

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


async def test_refused_call_raises(hold: Hold) -> None:
    """A call that waits for a thread at the stop ends with an error."""
    async with stopping(hold) as pool:
        call = asyncio.create_task(pool.call(int))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="are stopped"):
        await call


async def test_refused_lease_raises(hold: Hold) -> None:
    """Calls of a lease that waits for a thread at the stop end with an error."""
    async with stopping(hold) as pool:
        lease = Lease(pool.submit)
        waiting, cancelled = lease.submit(int), lease.submit(int)
        cancelled.cancel()
        lease.give_back()
    with pytest.raises(RuntimeError, match="are stopped"):
        waiting.result(PATIENCE)
    with pytest.raises(RuntimeError, match="are stopped"):
        lease.submit(int)


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
