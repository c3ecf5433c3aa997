"""The threads of a pool: the isolation of jobs, and races one step at a time."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.db import connections
from django.utils import timezone, translation
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency.threads import Threads
from django_microservices.concurrency.workers import Queue
from tests.brokers.fixtures import django_database

if TYPE_CHECKING:
    from django_microservices.concurrency.hygiene import Databases

from .work import PATIENCE, Hold, Work, do


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


@pytest.fixture
def woken(still: Threads, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Wake the thread just before it would leave the idle list."""
    queue = still._queue
    leave = queue.leave

    def woken_first(worker: Any) -> bool:
        queue.wake()
        return leave(worker)

    monkeypatch.setattr(queue, "leave", woken_first)
    return queue


async def test_woken_before_the_rest(still: Threads, woken: Queue) -> None:
    """A thread that was woken before it could leave takes the wake-up along."""
    woken.jobs.append(Work())
    await resting(still, Rested(60.0))
    assert not woken.waking


async def test_connections_expire_at_rest(still: Threads) -> None:
    """A thread that rests wakes up for a connection that is too old."""
    databases = Rested(0.0)
    await resting(still, databases)
    assert databases.expired == 1


async def test_woken_while_connections_expire(still: Threads, woken: Queue) -> None:
    """A job that comes at the very moment goes first."""
    databases = Rested(0.0)
    await resting(still, databases)
    assert databases.expired == 0
    assert not woken.waking


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
