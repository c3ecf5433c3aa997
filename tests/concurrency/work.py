"""Work for the threads of a pool, and what keeps them busy."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

from django.db import DatabaseError, connections

from django_microservices.concurrency.threads import Threads

PATIENCE = 20.0

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Work:
    """A job that notes what its function returned, and on which threads it was.

    A database error is a result as well.
    """

    def __init__(self, function: Callable[[], Any] = lambda: None) -> None:
        self.function = function
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.value: Any = None
        self.ran_on = self.finished_on = 0

    def run(self) -> None:
        """Note the result and the thread."""
        self.ran_on = threading.get_ident()
        try:
            self.value = self.function()
        except DatabaseError as error:
            self.value = error

    def finish(self) -> None:
        """Note the thread, and hand the result over."""
        self.finished_on = threading.get_ident()
        self.ended.set_result(self.value)


async def do(threads: Threads, function: Callable[[], Any]) -> Any:
    """Run one job to its end."""
    work = Work(function)
    threads.submit(work)
    return await asyncio.wait_for(work.ended, PATIENCE)


async def do_all(threads: Threads, functions: list[Callable[[], Any]]) -> list[Any]:
    """Run jobs at the same time."""
    return await asyncio.gather(*(do(threads, function) for function in functions))


class Hold:
    """Keeps a thread busy until it is released."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> None:
        """Wait on the pool's thread."""
        self.started.set()
        assert self.release.wait(PATIENCE)


async def happens(event: threading.Event) -> None:
    """Wait for a thread's event without blocking the loop."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


def on_thread(function: Callable[[], Any]) -> Any:
    """Run a function on a fresh thread, and return its result."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(PATIENCE)
    return result[0]


def select(alias: str) -> int:
    """Ask the database for 1."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


def open_by_sql(alias: str) -> None:
    """Begin behind Django's back."""
    connections[alias].cursor().execute("BEGIN")
    select(alias)


def fail(error: BaseException) -> None:
    """Raise ``error``."""
    raise error


@contextlib.asynccontextmanager
async def stopping(hold: Hold) -> AsyncIterator[Threads]:
    """Give a pool whose only thread is busy, and stop it after the block."""
    pool = Threads(1, asyncio.get_running_loop())
    busy = asyncio.create_task(pool.call(hold))
    await happens(hold.started)
    yield pool
    assert not pool.stop(0.0)
    hold.release.set()
    assert pool.stop(PATIENCE)
    await busy


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts how often it was woken, and may run something first."""

    wake_ups = 0
    before: Callable[[], object] | None = None

    def call_soon_threadsafe(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> asyncio.Handle:
        """Count, then do as usual."""
        self.wake_ups += 1
        if self.before is not None:
            self.before()
        return super().call_soon_threadsafe(*args, **kwargs)
