"""The end of a pool of threads."""

import asyncio
import subprocess
import sys
import threading

import pytest

from django_microservices.concurrency.threads import Threads

from .work import PATIENCE, Hold, Work, do


def alive(name: str) -> list[threading.Thread]:
    """Return the pool's threads."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


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


class Unheard:
    """A job that notes whether it was finished."""

    def __init__(self, run: Hold) -> None:
        self.run = run
        self.finished = False

    def finish(self) -> None:
        """Note it."""
        self.finished = True


def test_loop_that_is_closed_first(hold: Hold) -> None:
    """A job that ends after its loop has nobody left to finish it for."""
    loop = asyncio.new_event_loop()
    pool = Threads(1, loop)
    job = Unheard(hold)
    pool.submit(job)
    assert hold.started.wait(PATIENCE)
    loop.close()
    hold.release.set()
    assert pool.stop(PATIENCE)
    assert not job.finished


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
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")
    assert done.returncode == 0
