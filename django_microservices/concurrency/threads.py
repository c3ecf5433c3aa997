"""The fixed pool of threads on which sync handlers run."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from functools import partial
from typing import ParamSpec, TypeVar

from asgiref.sync import ThreadSensitiveContext

from .hygiene import restore_context
from .inbox import Inbox
from .jobs import FunctionJob, Lease
from .pools import Job
from .streams import Stream, read
from .workers import Queue, Worker

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


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
        self._queue = Queue()
        self._ended = Inbox(loop)
        self._count = count
        self._database_max_age = database_max_age
        self._workers: list[Worker] = []
        for _ in range(count):
            self._add_worker()

    def _add_worker(self) -> None:
        name = f"{self._name}-{len(self._workers) + 1}"
        age = self._database_max_age
        worker = Worker(name, self._queue, self._loop, self._ended, age)
        self._workers.append(worker)

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
        job = FunctionJob(partial(function, *args, **kwargs), self._loop)
        self.submit(job)
        await job.ended
        restore_context(job.context)
        return job.result()

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
            self._ended.close()
        return not any(worker.thread.is_alive() for worker in self._workers)

    def _refuse_the_rest(self) -> None:
        jobs = self._queue.take_all()
        if jobs:
            logger.warning("%s: %d job(s) never started.", self._name, len(jobs))
        for job in jobs:
            refuse = getattr(job, "refuse", None)
            if refuse is not None:
                with contextlib.suppress(RuntimeError):  # there is no loop to hear it
                    self._ended.put(refuse, self._stopped_error())

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
                self._tell_of(worker)
                self._add_worker()
                worker.is_relieved = True
        return len(hanging)

    def _tell_of(self, worker: Worker) -> None:
        job, name = worker.job, worker.thread.name
        extra = getattr(job, "extra", None)  # a delivery names its message
        logger.error("Thread %s hangs in %r.", name, job, extra=extra)
