"""The fixed pool of threads on which sync handlers run.

The hottest path of the library, about 2 us of CPU a message. Threads are woken one by
one, each by the one before, and hand back what they ended in one wake-up of the loop.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from asgiref.sync import ThreadSensitiveContext

from .hygiene import Databases, Isolation, adopt_loop, restore_context
from .streams import Call, Lease, Stream, read

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Job(Protocol):
    """What a thread carries out for the loop."""

    def run(self) -> None:
        """Do the work, on a thread of the pool; an exception is only logged."""

    def finish(self) -> None:
        """Take the result up, on the loop's thread, some time after :meth:`run`."""


class Threads:
    """``count`` threads that run jobs for one loop, each job isolated from the others.

    A thread keeps its database connections (``database_max_age`` seconds, where
    CONN_MAX_AGE is 0) and its cache connections. All methods are for the loop's thread.
    """

    def __init__(
        self,
        count: int,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str = "microservice-sync",
        database_max_age: float = 60.0,
    ) -> None:
        self._name = name
        self._loop = loop
        self._queue = _Queue()
        self._ended = _HandBack(loop)
        self._count = count
        self._database_max_age = database_max_age
        self._workers: list[_Worker] = []
        for _ in range(count):
            self._add_worker()

    def _add_worker(self) -> None:
        name = f"{self._name}-{len(self._workers) + 1}"
        queue, ended, age = self._queue, self._ended, self._database_max_age
        self._workers.append(_Worker(name, queue, ended, age))

    def submit(self, job: Job) -> None:
        """Run ``job`` on the next free thread. Raises RuntimeError once stopped."""
        queue = self._queue
        if queue.stopped:
            raise self._stopped_error()
        queue.jobs.append(job)
        if not queue.waking and queue.idle:
            queue.wake()

    async def call(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one sync function in the caller's context, and return its result.

        Language, time zone and context variables travel there and back, as with
        ``sync_to_async``. A caller that is cancelled leaves a started function running.
        """
        call = Call(partial(function, *args, **kwargs), self._loop)
        self.submit(call)
        await call.ended
        restore_context(call.context)
        return call.result()

    def stream(
        self, source: Callable[[], Iterable[T]], *, buffer: int = 64
    ) -> AsyncGenerator[T]:
        """Iterate over ``source()``, which runs whole on one thread.

        At most ``buffer`` items are made ahead of the reader. ``aclose()`` returns when
        the generator's ``finally`` blocks have run, on its own thread.
        """
        stream = Stream(source, buffer, self._loop, self._ended.put)
        return read(stream, self.submit)

    @contextlib.asynccontextmanager
    async def database_thread(self) -> AsyncIterator[None]:
        """Run the async ORM inside the block on one thread, taken at its first use."""
        lease = Lease(self.submit)
        try:
            async with ThreadSensitiveContext(executor=lease):
                yield
        finally:
            lease.give_back()

    def stop(self, timeout: float) -> bool:
        """Take no more jobs, and wait up to ``timeout`` seconds for those there are.

        False if a thread is still busy. Jobs that never started are refused and logged.
        Blocks the loop, so drain first.
        """
        self._queue.stop()
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.thread.join(max(0.0, deadline - time.monotonic()))
        self._refuse_the_rest()
        if self._is_on_loop():
            self._ended.run()
        return not any(worker.thread.is_alive() for worker in self._workers)

    def _refuse_the_rest(self) -> None:
        jobs = self._queue.take_all()
        if jobs:
            logger.warning("%s: %d job(s) never started.", self._name, len(jobs))
        for job in jobs:
            refuse = getattr(job, "refuse", None)
            if refuse is not None:
                self._ended.put(partial(refuse, self._stopped_error()))

    def _stopped_error(self) -> RuntimeError:
        return RuntimeError(f"The threads {self._name!r} are stopped.")

    def _is_on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return not self._loop.is_running()

    @property
    def busy(self) -> int:
        """How many threads have a job now."""
        return sum(worker.job is not None for worker in self._workers)

    def stuck(self, after: float) -> int:
        """How many threads have had the same job for more than ``after`` seconds."""
        before = time.monotonic() - after
        return sum(worker.has_job_since(before) for worker in self._workers)

    def relieve(self, after: float) -> int:
        """Return how many threads work for nobody, and put another beside each.

        They had the same job for more than ``after`` seconds, and the job says that it
        is ``abandoned``. Such a thread ends with its job, so that there are never more
        threads, and database connections, than those of the pool and those that hang.
        At most as many are put beside as the pool has.
        """
        before = time.monotonic() - after
        self._workers = [worker for worker in self._workers if worker.is_there]
        hanging = [worker for worker in self._workers if worker.hangs(before)]
        for worker in hanging:
            if not worker.is_relieved and len(self._workers) < 2 * self._count:
                logger.error("Thread %s hangs in %r.", worker.thread.name, worker.job)
                self._add_worker()
                worker.is_relieved = True
        return len(hanging)


class _Queue:
    """The jobs that wait for a thread, and the threads that wait for a job.

    ``waking`` is true while a woken thread has not arrived: it will look at ``jobs``
    itself, so nobody else needs to be woken. Every check comes after the change that
    the other side checks for, hence no wake-up is lost.
    """

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.idle: list[_Worker] = []
        self.waking = False
        self.stopped = False

    def wake(self) -> None:
        """Wake the thread that rests the shortest: its connections are the warmest."""
        try:
            worker = self.idle.pop()
        except IndexError:
            return
        self.waking = True
        worker.arrival.release()

    def leave(self, worker: "_Worker") -> bool:
        """Take ``worker`` off the idle list; False if it is being woken already."""
        try:
            self.idle.remove(worker)
        except ValueError:
            return False
        return True

    def stop(self) -> None:
        self.stopped = True
        while self.idle:
            self.wake()

    def take_all(self) -> list[Job]:
        jobs: list[Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self.jobs.popleft())
        return jobs


class _HandBack:
    """Runs callbacks of other threads on the loop, all that wait in one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[Callable[[], object]] = deque()
        self._woken = False

    def put(self, callback: Callable[[], object]) -> None:
        self._waiting.append(callback)
        if not self._woken:
            self._woken = True
            # A loop that was closed has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.run)

    def run(self) -> None:
        self._woken = False
        waiting = self._waiting
        for _ in range(len(waiting)):
            try:
                waiting.popleft()()
            except Exception:
                logger.exception("Finishing a job failed.")


class _Worker:
    """One thread, its present job, and since when (monotonic) it has that."""

    def __init__(
        self, name: str, queue: _Queue, ended: _HandBack, database_max_age: float
    ) -> None:
        self.since = 0.0
        self.job: Job | None = None
        self.is_relieved = False
        self.arrival = threading.Lock()
        self.arrival.acquire()
        self._queue = queue
        self._ended = ended
        self._database_max_age = database_max_age
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        return self.thread.is_alive()

    def has_job_since(self, before: float) -> bool:
        """Whether it began its present job before that time."""
        return self.job is not None and self.since < before

    def hangs(self, before: float) -> bool:
        """Whether it began, before that time, a job that nobody awaits any more."""
        job = self.job
        return getattr(job, "abandoned", False) and self.since < before

    def _work(self) -> None:
        adopt_loop(self._ended.loop)
        isolation = Isolation()
        databases = Databases(self._database_max_age)
        while self._carry_out(isolation, databases):
            self._rest(databases)
        databases.close()
        isolation.close()

    def _carry_out(self, isolation: Isolation, databases: Databases) -> bool:
        """Run jobs until there is none; False once the queue is stopped."""
        queue, opened, put = self._queue, databases.opened, self._ended.put
        jobs, idle = queue.jobs, queue.idle
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                return not queue.stopped
            if jobs and idle and not queue.waking:
                queue.wake()
            self.since = now = time.monotonic()
            self.job = job
            if opened:
                databases.before(now)
            try:
                isolation.run(job.run)
            except BaseException:
                logger.exception("A job failed on thread %s.", self.thread.name)
            if opened:
                databases.after()
            self.job = None
            put(job.finish)
            del job  # a thread at rest holds no message
            if self.is_relieved:
                return self._leave()

    def _leave(self) -> bool:
        """Let the thread that took the place work on."""
        queue = self._queue
        if queue.jobs and not queue.waking:
            queue.wake()
        return False

    def _rest(self, databases: Databases) -> None:
        """Wait for a job; close connections whose age is reached meanwhile."""
        queue = self._queue
        queue.idle.append(self)
        if (queue.jobs or queue.stopped) and queue.leave(self):
            return
        timeout = databases.expires_in() if databases.opened else -1.0
        if not self.arrival.acquire(timeout=timeout):
            if queue.leave(self):
                databases.expire()
                return
            self.arrival.acquire()
        queue.waking = False
