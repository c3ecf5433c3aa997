"""The pool of threads: jobs, their isolation, and the end of the pool."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches
from django.db import connections
from django.utils import timezone, translation
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency.threads import Threads
from tests.brokers.fixtures import django_database

if TYPE_CHECKING:
    from django_microservices.concurrency.hygiene import Databases

PATIENCE = 10.0


class Work:
    """A job that notes what its function returned, and on which threads it was."""

    def __init__(self, function: Callable[[], Any] = lambda: None) -> None:
        self.function = function
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.value: Any = None
        self.ran_on = self.finished_on = 0

    def run(self) -> None:
        """Note the value and the thread."""
        self.ran_on = threading.get_ident()
        self.value = self.function()

    def finish(self) -> None:
        """Note the thread."""
        self.finished_on = threading.get_ident()
        self.ended.set_result(self.value)


async def do(threads: Threads, function: Callable[[], Any]) -> Any:
    """Run one job to its end."""
    work = Work(function)
    threads.submit(work)
    return await asyncio.wait_for(work.ended, PATIENCE)


def alive(name: str) -> list[threading.Thread]:
    """Return the pool's threads."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[Threads]:
    """Give a pool of two."""
    pool = Threads(2, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


@pytest_asyncio.fixture
async def single() -> AsyncIterator[Threads]:
    """Give a pool of one, so that jobs follow each other on the same thread."""
    pool = Threads(1, asyncio.get_running_loop())
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


@pytest.fixture
def hold() -> Hold:
    """Give a function that holds its thread."""
    return Hold()


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


async def test_rest_is_woken_by_the_thread_that_works(
    threads: Threads, hold: Hold
) -> None:
    """Jobs of one tick reach the second thread although the first one blocks."""
    held, other = Work(hold), Work()
    threads.submit(held)
    threads.submit(other)
    await other.ended
    hold.release.set()
    await held.ended


async def test_one_wake_up_finishes_many(
    single: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that end while the loop is busy are finished in one wake-up."""
    loop = asyncio.get_running_loop()
    wake_ups = []
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
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
    assert "Finishing a job failed" in caplog.text


async def test_resting_thread_holds_no_message(single: Threads) -> None:
    """What a job was is collected when it has ended, not when the next one comes."""
    work = Work()
    gone = weakref.ref(work)
    single.submit(work)
    await work.ended
    del work
    async with asyncio.timeout(PATIENCE):
        while single.busy or gone() is not None:
            gc.collect()
            await asyncio.sleep(0)


async def test_no_wake_up_is_lost() -> None:
    """Jobs that come one by one, at any moment of a thread's rest, are all run."""
    pool = Threads(3, asyncio.get_running_loop())

    async def caller() -> int:
        return sum([await do(pool, lambda: 1) for _ in range(300)])

    counts = await asyncio.gather(*(caller() for _ in range(4)))
    assert counts == [300] * 4
    assert pool.stop(PATIENCE)


# --- isolation --------------------------------------------------------------------


async def test_language_ends_with_the_message(single: Threads) -> None:
    """A language that one handler activates is not the next one's."""
    await do(single, lambda: translation.activate("de"))
    assert await do(single, translation.get_language) == "en"


async def test_time_zone_ends_with_the_message(single: Threads) -> None:
    """A time zone that one handler activates is not the next one's."""
    await do(single, lambda: timezone.activate("Europe/Berlin"))
    assert await do(single, timezone.get_current_timezone_name) == "UTC"


async def test_cache_connection_stays(single: Threads) -> None:
    """A thread has one cache object for all its messages."""
    first = await do(single, lambda: caches["default"])
    assert await do(single, lambda: caches["default"]) is first


async def test_async_to_sync_uses_the_loop(single: Threads) -> None:
    """Async code that a handler calls runs on the loop of the pool."""

    async def current() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    loop = await do(single, async_to_sync(current))
    assert loop is asyncio.get_running_loop()


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


# --- the end ----------------------------------------------------------------------


async def test_stop_ends_the_threads() -> None:
    """No thread is left after stop()."""
    pool = Threads(3, asyncio.get_running_loop(), name="ending")
    await do(pool, lambda: None)
    assert len(alive("ending")) == 3
    assert pool.stop(PATIENCE)
    assert alive("ending") == []


async def test_stopped_pool_takes_no_job() -> None:
    """A job for a pool that is stopped is an error that names the pool."""
    pool = Threads(1, asyncio.get_running_loop(), name="ending")
    assert pool.stop(PATIENCE)
    with pytest.raises(RuntimeError, match="'ending' are stopped"):
        pool.submit(Work())


async def test_stop_twice() -> None:
    """A pool may be stopped again."""
    pool = Threads(1, asyncio.get_running_loop())
    assert pool.stop(PATIENCE)
    assert pool.stop(PATIENCE)


async def test_stop_finishes_what_is_queued() -> None:
    """Jobs that wait at stop() are run and finished before it returns."""
    pool = Threads(1, asyncio.get_running_loop())
    jobs = [Work() for _ in range(20)]
    for job in jobs:
        pool.submit(job)
    assert pool.stop(PATIENCE)
    assert all(job.ended.done() for job in jobs)


async def test_stop_reports_a_busy_thread(
    hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the time is up stop() is false, and says how many jobs never started."""
    pool = Threads(1, asyncio.get_running_loop(), name="ending")
    pool.submit(Work(hold))
    assert hold.started.wait(PATIENCE)
    never = Work()
    pool.submit(never)
    assert not pool.stop(0.0)
    assert "ending: 1 job(s) never started" in caplog.text
    hold.release.set()
    assert pool.stop(PATIENCE)
    assert not never.ended.done()


async def test_stop_refuses_calls_that_wait(hold: Hold) -> None:
    """A call that never started ends with an error instead of never."""
    pool = Threads(1, asyncio.get_running_loop())
    pool.submit(Work(hold))
    assert hold.started.wait(PATIENCE)
    call = asyncio.create_task(pool.call(int))
    await asyncio.sleep(0)
    assert not pool.stop(0.0)
    with pytest.raises(RuntimeError, match="are stopped"):
        await call
    hold.release.set()
    assert pool.stop(PATIENCE)


async def test_stop_from_another_thread() -> None:
    """Elsewhere than on the loop stop() leaves the finishing to the loop."""
    pool = Threads(1, asyncio.get_running_loop())
    work = Work()
    pool.submit(work)
    assert await asyncio.to_thread(pool.stop, PATIENCE)
    await asyncio.wait_for(work.ended, PATIENCE)
    assert work.finished_on == threading.get_ident()


async def test_thread_closes_its_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends closes its own cache connections."""
    pool = Threads(1, asyncio.get_running_loop())
    cache = await do(pool, lambda: caches["default"])
    closed_on = []
    monkeypatch.setattr(
        cache, "close", lambda: closed_on.append(threading.current_thread().name)
    )
    assert pool.stop(PATIENCE)
    assert closed_on == ["microservice-sync-1"]


def test_stop_after_the_loop(hold: Hold) -> None:
    """After its loop has ended a pool can be stopped, and finishes what ran."""
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Threads, Work]:
        pool = Threads(1, loop)
        work = Work(hold)
        pool.submit(work)
        return pool, work

    pool, work = loop.run_until_complete(begin())
    assert hold.started.wait(PATIENCE)
    hold.release.set()
    assert pool.stop(PATIENCE)
    assert work.ended.done()
    loop.close()


LOOP_CLOSES_FIRST = """
import asyncio, threading
from django_microservices.concurrency.threads import Threads

class Job:
    started, release = threading.Event(), threading.Event()
    def run(self):
        self.started.set()
        self.release.wait(10)
    def finish(self):
        print("finished")

loop = asyncio.new_event_loop()
pool = Threads(2, loop)
pool.submit(Job())
Job.started.wait(10)
loop.close()
Job.release.set()
print(pool.stop(10))

Job.started.clear()
Job.release.clear()
pool = Threads(1, asyncio.new_event_loop())
pool.submit(Job())
Job.started.wait(10)
print(pool.stop(0))
"""


def test_process_ends_quietly() -> None:
    """Neither a loop that closes first nor a stuck thread disturbs the end."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", LOOP_CLOSES_FIRST],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("finished\nTrue\nFalse\n", "")
    assert done.returncode == 0


# --- races, one step at a time ----------------------------------------------------


class Rested:
    """The databases of a thread: their age, and how often they were closed."""

    def __init__(self, expires_in: float) -> None:
        self.opened = ("default",)
        self.expired = 0
        self._expires_in = expires_in

    def expires_in(self) -> float:
        """Give the time until one is too old."""
        return self._expires_in

    def expire(self) -> None:
        """Note the call."""
        self.expired += 1


async def resting(pool: Threads, databases: Rested) -> None:
    """Have a thread of a stopped pool rest once, here."""
    pool._workers[0]._rest(cast("Databases", databases))
    assert pool._queue.idle == []


@pytest_asyncio.fixture
async def still() -> Threads:
    """Give a pool whose thread has ended, so that the test can play its part."""
    pool = Threads(1, asyncio.get_running_loop())
    assert pool.stop(PATIENCE)
    pool._queue.stopped = False
    return pool


async def test_job_before_the_rest(still: Threads) -> None:
    """A job that came just before the thread was listed as idle wakes it."""
    still.submit(Work())
    await resting(still, Rested(60.0))


async def test_woken_before_the_rest(
    still: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was woken before it could leave takes the wake-up along."""
    queue = still._queue
    leave = queue.leave

    def woken_first(worker: Any) -> bool:
        queue.wake()
        return leave(worker)

    monkeypatch.setattr(queue, "leave", woken_first)
    queue.jobs.append(Work())
    await resting(still, Rested(60.0))
    assert not queue.waking


async def test_connections_expire_at_rest(still: Threads) -> None:
    """A thread that rests wakes up for a connection that is too old."""
    databases = Rested(0.0)
    await resting(still, databases)
    assert databases.expired == 1


async def test_woken_while_connections_expire(
    still: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that comes at the very moment goes first."""
    queue = still._queue
    leave = queue.leave

    def woken_first(worker: Any) -> bool:
        queue.wake()
        return leave(worker)

    monkeypatch.setattr(queue, "leave", woken_first)
    databases = Rested(0.0)
    await resting(still, databases)
    assert databases.expired == 0
    assert not queue.waking


async def test_wake_without_anybody_idle(still: Threads) -> None:
    """Waking nobody is no error, and nobody is waited for."""
    still._queue.wake()
    assert not still._queue.waking


# --- what else a thread does ------------------------------------------------------


async def test_databases_are_tidied_after_every_job(
    single: Threads,
    tmp_path: Path,
    django_db_blocker: DjangoDbBlocker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A transaction that one job leaves open is closed before the next."""
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db"}
    with django_db_blocker.unblock(), django_database("extra", settings) as alias:
        await do(single, lambda: connections[alias].set_autocommit(False))
        assert "left a transaction open" in caplog.text
        again = await do(single, lambda: connections[alias].autocommit)
        assert again is True
        assert single.stop(PATIENCE)


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
