"""The threads of a pool, and the queue that they take their jobs from.

The hottest path of the library, about 2 us of CPU a message. Threads are woken one by
one, each by the one before, and hand back what they ended in one wake-up of the loop.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque

from .hygiene import Databases, Isolation, adopt_loop
from .inbox import Inbox
from .pools import Job

logger = logging.getLogger(__name__)


class Queue:
    """The jobs that wait for a thread, and the threads that wait for a job.

    ``waking`` is true while a woken thread has not arrived: it will look at ``jobs``
    itself, so nobody else needs to be woken. Every check comes after the change that
    the other side checks for, hence no wake-up is lost.
    """

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.idle: list[Worker] = []
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

    def leave(self, worker: "Worker") -> bool:
        """Take ``worker`` off the idle list; False if it is being woken already."""
        try:
            self.idle.remove(worker)
        except ValueError:
            return False
        return True

    def stop(self) -> None:
        """Let every thread end once there is no job left."""
        self.stopped = True
        while self.idle:
            self.wake()

    def take_all(self) -> list[Job]:
        """Remove the jobs that no thread will come for."""
        jobs: list[Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self.jobs.popleft())
        return jobs


class Worker:
    """One thread, its present job, and since when (monotonic) it has that."""

    def __init__(
        self,
        name: str,
        queue: Queue,
        loop: asyncio.AbstractEventLoop,
        ended: Inbox,
        database_max_age: float,
    ) -> None:
        self.since = 0.0
        self.job: Job | None = None
        self.is_relieved = False
        self.arrival = threading.Lock()
        self.arrival.acquire()
        self._queue = queue
        self._loop = loop
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
        adopt_loop(self._loop)
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
            try:
                put(job.finish)
            except RuntimeError:
                logger.debug("A job ended after its loop.")
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
