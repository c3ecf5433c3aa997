"""The pool of threads: its jobs and its gauges."""

import asyncio
import sys
import threading
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_microservices.concurrency.threads import Threads

from .work import PATIENCE, Hold, Work, do

# --- jobs -------------------------------------------------------------------------


async def test_runs_off_the_loop_and_finishes_on_it(threads: Threads) -> None:
    """A job runs on a thread of the pool and is finished on the loop's."""
    work = Work()
    threads.submit(work)
    await work.ended
    assert work.ran_on != threading.get_ident()
    assert work.finished_on == threading.get_ident()


async def test_all_threads_work_at_once() -> None:
    """As many jobs run at the same time as there are threads."""
    pool = Threads(8, asyncio.get_running_loop())
    meeting = threading.Barrier(8, timeout=PATIENCE)
    jobs = [Work(meeting.wait) for _ in range(24)]
    for job in jobs:
        pool.submit(job)
    places = await asyncio.gather(*(job.ended for job in jobs))
    assert sorted(places) == sorted([*range(8)] * 3)
    assert pool.stop(PATIENCE)


async def test_busy_thread_holds_nobody_up(threads: Threads, hold: Hold) -> None:
    """Jobs flow past a thread that is held by one."""
    held = Work(hold)
    threads.submit(held)
    assert [await do(threads, partial(int, n)) for n in range(10)] == [*range(10)]
    hold.release.set()
    await held.ended


async def test_one_wake_up_finishes_many(wake_ups: list[Any], single: Threads) -> None:
    """Jobs that end while the loop is busy are finished in one wake-up."""
    all_ran = threading.Event()
    jobs = [Work() for _ in range(50)] + [Work(all_ran.set)]
    for job in jobs:
        single.submit(job)
    assert all_ran.wait(PATIENCE)
    await asyncio.gather(*(job.ended for job in jobs))
    assert len(wake_ups) <= 2


async def test_failing_job_is_logged(
    single: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that raises is logged, is still finished, and the thread goes on."""
    work = Work(sys.exit)
    single.submit(work)
    await work.ended
    assert "A job failed on thread microservice-sync-1" in caplog.text
    assert await do(single, lambda: "next") == "next"


async def test_failing_finish_is_logged(
    single: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose finish() raises is logged, and the others are finished."""
    broken = Work()
    broken.ended.set_result(None)
    single.submit(broken)
    assert await do(single, lambda: "next") == "next"
    assert "Work.finish" in caplog.text


# --- gauges -----------------------------------------------------------------------


async def test_busy_counts_threads_with_a_job(threads: Threads, hold: Hold) -> None:
    """``busy`` is the number of threads that have a job now."""
    assert threads.busy == 0
    held = Work(hold)
    threads.submit(held)
    assert hold.started.wait(PATIENCE)
    assert threads.busy == 1
    hold.release.set()
    await held.ended
    assert threads.busy == 0


async def test_stuck_counts_long_jobs(threads: Threads, hold: Hold) -> None:
    """``stuck`` is the number of threads that have had one job for too long."""
    held = Work(hold)
    threads.submit(held)
    assert hold.started.wait(PATIENCE)
    assert threads.stuck(after=0.0) == 1
    assert threads.stuck(after=60.0) == 0
    hold.release.set()
    await held.ended


class Abandoned(Work):
    """A job that nobody awaits any more."""

    abandoned = True


async def test_relieve_puts_a_thread_beside_one_that_hangs(hold: Hold) -> None:
    """Beside a thread that works for nobody another is put, for as long as it does."""
    pool = Threads(1, asyncio.get_running_loop())
    hanging, waiting = Abandoned(hold), Work(lambda: 7)
    pool.submit(hanging)
    assert hold.started.wait(PATIENCE)
    pool.submit(waiting)
    assert pool.relieve(after=60.0) == 0
    assert pool.relieve(after=0.0) == 1
    assert await asyncio.wait_for(waiting.ended, PATIENCE) == 7
    assert pool.relieve(after=0.0) == 1
    assert len(pool._workers) == 2
    hold.release.set()
    await hanging.ended
    async with asyncio.timeout(PATIENCE):
        while len(pool._workers) > 1:
            assert pool.relieve(after=0.0) == 0
            await asyncio.sleep(0.001)
    assert await do(pool, lambda: 8) == 8
    assert pool.stop(PATIENCE)


async def test_relieve_leaves_long_jobs_alone(threads: Threads, hold: Hold) -> None:
    """A job that somebody awaits may take its time."""
    held = Work(hold)
    threads.submit(held)
    assert hold.started.wait(PATIENCE)
    assert threads.relieve(after=0.0) == 0
    assert len(threads._workers) == 2
    hold.release.set()
    await held.ended


async def test_relieved_thread_wakes_another(hold: Hold) -> None:
    """A thread that leaves sees to it that what waits is taken up."""
    pool = Threads(1, asyncio.get_running_loop())
    hanging = Abandoned(hold)
    pool.submit(hanging)
    assert hold.started.wait(PATIENCE)
    pool.relieve(after=0.0)
    second = Hold()
    held = Work(second)
    pool.submit(held)
    assert await asyncio.to_thread(second.started.wait, PATIENCE)
    jobs = [Work(partial(int, n)) for n in range(3)]
    for job in jobs:
        pool.submit(job)
    hold.release.set()
    await hanging.ended
    second.release.set()
    assert await asyncio.gather(*(job.ended for job in jobs)) == [0, 1, 2]
    assert pool.stop(PATIENCE)


# --- what it does with jobs of its own ---


async def test_call_returns_the_result(single: Threads) -> None:
    """``call`` runs a function with its arguments on a thread of the pool."""
    thread = await single.call(threading.current_thread)
    assert thread.name == "microservice-sync-1"
    assert await single.call(int, "ff", base=16) == 255


async def test_stream_yields_the_items(single: Threads) -> None:
    """``stream`` reads an iterator that runs on a thread of the pool."""
    assert [n async for n in single.stream(lambda: range(3))] == [0, 1, 2]


async def test_database_thread_is_one_of_the_pool(single: Threads) -> None:
    """Inside ``database_thread`` thread-sensitive code runs on the pool."""
    async with single.database_thread():
        thread = await sync_to_async(threading.current_thread)()
    assert thread.name == "microservice-sync-1"
