"""Runs sync handlers on the caller's own thread, for transports in one process."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from .adapt import to_async
from .pools import Job

logger = logging.getLogger(__name__)

_END = object()


class Inline:
    """What :class:`Threads` offers, where Django runs thread-sensitive code.

    Under ``async_to_sync`` that is the caller's thread, so the transaction of a
    ``TestCase`` is seen.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, job: Job) -> None:
        """Run a job, then finish it."""
        task = self._loop.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _run(job: Job) -> None:
        try:
            await to_async(job.run)()
        except Exception:
            logger.exception("A job failed.")
        finally:
            job.finish()

    @staticmethod
    async def call(function: Callable[..., Any], *args: Any) -> Any:
        """Run one sync piece."""
        return await to_async(function)(*args)

    @asynccontextmanager
    async def database_thread(self) -> AsyncIterator[None]:
        """The async ORM already uses the caller's thread."""
        yield

    @staticmethod
    def stream(open_: Callable[[], Iterator[Any]]) -> AsyncGenerator[Any, None]:
        """Iterate a sync iterator, item by item."""
        return each(open_)


async def each(open_: Callable[[], Iterator[Any]]) -> AsyncGenerator[Any, None]:
    """Iterate a sync iterator where Django runs thread-sensitive code."""
    items = await to_async(open_)()
    while (item := await to_async(next)(items, _END)) is not _END:
        try:
            yield item
        except BaseException:
            # In a task of its own: sync_to_async() would raise this exception once
            # more on the thread, whose frames would then hold it.
            await asyncio.ensure_future(to_async(_close)(items))
            raise


def _close(items: Iterator[Any]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
