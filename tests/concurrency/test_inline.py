"""Sync handlers on the caller's own thread."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync

from django_microservices.concurrency.inline import Inline


class Work:
    """A job that notes its threads."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.ran_on = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def run(self) -> None:
        """Note the thread."""
        self.ran_on = threading.get_ident()
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """Note the thread."""
        self.ended.set_result(threading.get_ident())


def inline() -> Inline:
    """Make one for the running loop."""
    return Inline(asyncio.get_running_loop())


def test_job_runs_on_the_callers_thread() -> None:
    """Under ``async_to_sync`` a job runs on the caller's thread."""

    async def do() -> int:
        work = Work()
        inline().submit(work)
        await work.ended
        return work.ran_on

    assert async_to_sync(do)() == threading.get_ident()


async def test_job_is_finished_on_the_loop() -> None:
    """A job is finished on the loop's thread."""
    work = Work()
    inline().submit(work)
    assert await work.ended == threading.get_ident()


async def test_failing_job(caplog: pytest.LogCaptureFixture) -> None:
    """A job that raises is logged, and finished all the same."""
    work = Work(ZeroDivisionError())
    with caplog.at_level(logging.ERROR):
        inline().submit(work)
        await work.ended
    assert "A job failed." in caplog.text


async def test_call() -> None:
    """One sync function is called with its arguments."""
    assert await inline().call(divmod, 7, 3) == (2, 1)


async def test_database_thread() -> None:
    """There is nothing to take for the async ORM."""
    async with inline().database_thread():
        assert await inline().call(int, "1") == 1


async def test_stream() -> None:
    """A sync iterator is iterated item by item."""
    items = inline().stream(lambda: iter([1, 2, 3]))
    assert [item async for item in items] == [1, 2, 3]


async def test_closed_stream() -> None:
    """Closing a stream closes its generator."""
    closed: list[bool] = []

    def count() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    items = inline().stream(count)
    assert await anext(items) == 1
    await items.aclose()
    assert closed == [True]


async def test_closed_stream_of_a_plain_iterator() -> None:
    """An iterator that cannot be closed is left alone."""
    items = inline().stream(lambda: iter([1, 2]))
    assert await anext(items) == 1
    await items.aclose()
