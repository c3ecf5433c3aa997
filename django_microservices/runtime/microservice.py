"""The servers of one process: start, ready, drain, stop."""

import asyncio
import logging
from collections.abc import Iterable

from ..concurrency.django_thread import DjangoThread
from ..concurrency.inline import Inline
from ..concurrency.pools import Pool
from ..concurrency.threads import Threads
from ..endpoints.client import Client
from ..endpoints.server import Server
from ..signals import microservice_ready, microservice_starting, microservice_stopping

logger = logging.getLogger(__name__)

WATCH_INTERVAL = 1.0  # seconds between two looks at what hangs
STUCK_AFTER = 1.0  # seconds that a thread may go on for nobody


class Microservice:
    """Several servers on one loop, with their threads.

    ``drain_timeout`` and ``database_max_age`` are in seconds; ``clients`` are closed
    on this loop at the end. ``stuck`` is the number of threads that hang in handlers
    that nobody awaits any more.
    """

    def __init__(
        self,
        servers: Iterable[Server],
        *,
        clients: Iterable[Client] = (),
        sync_threads: int = 8,
        stream_threads: int = 4,
        database_max_age: float = 60.0,
        drain_timeout: float = 30.0,
    ) -> None:
        self.servers = list(servers)
        self.clients = clients
        self.sync_threads = sync_threads
        self.stream_threads = stream_threads
        self.database_max_age = database_max_age
        self.drain_timeout = drain_timeout
        self._pools: tuple[Threads, Threads] | None = None
        self._django_thread: DjangoThread | None = None
        self._watch: asyncio.Task[None] | None = None
        self.stuck = 0

    async def start(self) -> None:
        """Start every server; return when all of them consume.

        Raises :class:`TransportRefused` when one never will; the others are stopped.
        """
        microservice_starting.send(type(self), microservice=self)
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    group.create_task(server.start(self._threads))
            microservice_ready.send(type(self), microservice=self)
        except BaseException as error:  # noqa: BLE001 - it travels on
            await self.stop()
            raise _first(error) from None
        self._watch = asyncio.create_task(self._keep_watch())

    def _threads(self, in_process: bool) -> tuple[Pool, Pool]:  # noqa: FBT001
        loop = asyncio.get_running_loop()
        if in_process:
            return Inline(loop), Inline(loop)
        if self._pools is None:
            age = self.database_max_age
            self._django_thread = DjangoThread()
            self._pools = (
                Threads(self.sync_threads, loop, database_max_age=age),
                Threads(
                    self.stream_threads,
                    loop,
                    name="microservice-stream",
                    database_max_age=age,
                ),
            )
        return self._pools

    @property
    def is_ready(self) -> bool:
        """Whether every server consumes."""
        return all(server.is_ready for server in self.servers)

    async def ended(self) -> Server:
        """Return the first server that gives up for good."""
        tasks = {asyncio.ensure_future(s.ended()): s for s in self.servers}
        if not tasks:
            await asyncio.Event().wait()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        return tasks[done.pop()]

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            for server in self.servers:
                server.watch.look()
            try:
                self._relieve()
            except RuntimeError as error:  # there are too many threads
                logger.error("No thread for one that hangs: %s", error)  # noqa: TRY400

    def _relieve(self) -> None:
        self.stuck = sum(pool.relieve(STUCK_AFTER) for pool in self._pools or ())

    async def drain(self) -> bool:
        """Take nothing new and finish what was accepted, within ``drain_timeout``.

        Returns whether everything was finished.
        """
        microservice_stopping.send_robust(type(self), microservice=self)
        try:
            async with asyncio.timeout(self.drain_timeout):
                return await self._drain_all()
        except TimeoutError:
            left = sum(len(server.in_flight) for server in self.servers)
            logger.warning("%d messages were not finished in time.", left)
            return False

    async def _drain_all(self) -> bool:
        drains = (server.drain() for server in self.servers)
        results = await asyncio.gather(*drains, return_exceptions=True)
        errors = [result for result in results if result is not None]
        for error in errors:
            logger.error("A server could not drain.", exc_info=error)
        return not errors

    async def stop(self) -> None:
        """Cancel what is left, close every connection and stop the threads."""
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(server.stop() for server in self.servers))
        await asyncio.gather(*(client.aclose() for client in self.clients))
        for pool in self._pools or ():
            if not pool.stop(timeout=1.0):
                logger.warning("A sync handler still runs; it ends with the process.")
        self._pools = None
        if self._django_thread is not None:
            self._django_thread.close()
            self._django_thread = None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
