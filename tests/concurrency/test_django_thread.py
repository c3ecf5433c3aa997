"""The thread that async ORM calls share."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.db import OperationalError, connections
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency.django_thread import DjangoThread
from tests.brokers.fixtures import django_database
from tests.brokers.postgres import Postgres

from .work import open_by_sql, select


@pytest.fixture
def thread() -> Iterator[DjangoThread]:
    """Give the thread, in asgiref's place."""
    thread = DjangoThread()
    yield thread
    thread.close()


@pytest.fixture
def alias(postgres: Postgres, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Give the alias of a database, without a test transaction."""
    with django_db_blocker.unblock(), django_database("one", postgres.settings) as name:
        yield name


@pytest.mark.usefixtures("thread")
async def test_sync_code_runs_there() -> None:
    """As all that Django runs for async code."""
    name = await sync_to_async(lambda: threading.current_thread().name)()
    assert name == "microservice-django_0"


def test_errors_travel(thread: DjangoThread) -> None:
    """An error is the caller's."""
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result()


async def test_asgirefs_own_thread_returns() -> None:
    """When it is closed, used or not."""
    before = SyncToAsync.single_thread_executor
    thread = DjangoThread()
    assert SyncToAsync.single_thread_executor is thread
    thread.close()
    assert SyncToAsync.single_thread_executor is before


@pytest.mark.parametrize("ends_first", [0, 1])
def test_one_of_two_ends(ends_first: int) -> None:
    """Of two, the one that is left is in use; then asgiref's own."""
    before = SyncToAsync.single_thread_executor
    threads = [DjangoThread(), DjangoThread()]
    threads.pop(ends_first).close()
    assert SyncToAsync.single_thread_executor is threads[0]
    threads[0].close()
    assert SyncToAsync.single_thread_executor is before


def test_close_at_the_exit() -> None:
    """The interpreter's exit ends the thread's work before; closing goes on."""
    program = """
import asyncio, atexit
from asgiref.sync import sync_to_async
import django
from django.conf import settings
settings.configure()
django.setup()
from django_microservices.concurrency.django_thread import DjangoThread
thread = DjangoThread()
asyncio.run(sync_to_async(int)())
atexit.register(thread.close)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.usefixtures("thread")
async def test_a_connection_is_replaced_when_it_broke(
    postgres: Postgres, alias: str
) -> None:
    """At most one call fails, however many follow at once."""
    await sync_to_async(select)(alias)
    pid = await sync_to_async(lambda: connections[alias].connection.info.backend_pid)()
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    calls = (sync_to_async(select)(alias) for _ in range(20))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers.count(1) >= 19
    assert all(a == 1 or isinstance(a, OperationalError) for a in answers)


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("age", [0, 1])
async def test_a_connection_is_kept(alias: str, age: int) -> None:
    """Its age says nothing of who reads from it between two calls."""
    connections.settings[alias]["CONN_MAX_AGE"] = age
    await sync_to_async(select)(alias)

    def close_at() -> float | None:
        return connections[alias].close_at

    assert await sync_to_async(close_at)() is None


@pytest.mark.usefixtures("thread")
async def test_an_open_transaction_is_rolled_back(alias: str) -> None:
    """Else the writes of all later messages would go into it."""
    await sync_to_async(open_by_sql)(alias)
    assert await sync_to_async(lambda: connections[alias].connection)() is None


async def test_connections_are_closed_with_it(postgres: Postgres, alias: str) -> None:
    """The database is not left with connections of a thread that ended."""
    thread = DjangoThread()
    await sync_to_async(select)(alias)
    connection = await sync_to_async(lambda: connections[alias].connection)()
    thread.close()
    thread.shutdown()
    assert connection.closed
