"""What a pool thread does to database connections, on SQLite and PostgreSQL."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asgiref.sync
import pytest
from django.core.cache import caches
from django.db import DatabaseError, connections, transaction
from django.test import override_settings
from django.utils import translation
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency import hygiene
from django_microservices.concurrency.threads import Threads
from tests.brokers.fixtures import django_database

from .work import PATIENCE, do, open_by_sql, select


@pytest.fixture(params=["sqlite", "postgresql"])
def alias(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """Give the alias of a database of either kind, without a test transaction."""
    if request.param == "postgresql":
        settings = request.getfixturevalue("postgres").settings
    else:
        settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db"}
    with django_db_blocker.unblock(), django_database("extra", settings) as name:
        yield name


def raw(alias: str) -> Any:
    """Use the database, and return the driver's connection."""
    select(alias)
    return connections[alias].connection


async def test_connection_stays(single: Threads, alias: str) -> None:
    """A thread keeps its connection although CONN_MAX_AGE is 0."""
    assert connections.settings[alias]["CONN_MAX_AGE"] == 0
    first = await do(single, lambda: raw(alias))
    assert await do(single, lambda: raw(alias)) is first


async def test_settings_of_others_stay(single: Threads, alias: str) -> None:
    """The longer age holds for the pool's connections only."""
    await do(single, lambda: select(alias))
    assert connections.settings[alias]["CONN_MAX_AGE"] == 0


async def test_connection_ages(alias: str) -> None:
    """A connection that is past its age is replaced."""
    pool = Threads(1, asyncio.get_running_loop(), database_max_age=0.0)
    first = await do(pool, lambda: raw(alias))
    assert await do(pool, lambda: raw(alias)) is not first
    assert pool.stop(PATIENCE)


async def test_age_of_the_project_is_respected(single: Threads, alias: str) -> None:
    """A CONN_MAX_AGE that the project sets is left as it is."""
    connections.settings[alias]["CONN_MAX_AGE"] = None
    await do(single, lambda: select(alias))
    assert await do(single, lambda: connections[alias].close_at) is None


def open_by_autocommit(alias: str) -> None:
    """Switch autocommit off, and forget it."""
    connections[alias].set_autocommit(False)
    select(alias)


def open_by_atomic(alias: str) -> None:
    """Enter an atomic block, and never leave it."""
    transaction.atomic(alias).__enter__()
    select(alias)


def open_by_nested_atomic(alias: str) -> None:
    """Enter two atomic blocks, and never leave them."""
    open_by_atomic(alias)
    open_by_atomic(alias)


def close_in_atomic(alias: str) -> None:
    """Close the connection in an atomic block that never ends."""
    open_by_atomic(alias)
    connections[alias].close()


LEFT_OPEN = [
    open_by_autocommit,
    open_by_atomic,
    open_by_nested_atomic,
    open_by_sql,
    close_in_atomic,
]


@pytest.mark.parametrize("leave_open", LEFT_OPEN, ids=lambda f: f.__name__)
async def test_open_transaction_is_rolled_back(
    single: Threads,
    alias: str,
    leave_open: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A transaction that a handler leaves open is rolled back, with a warning."""
    await do(single, lambda: connections[alias].cursor().execute(CREATE))
    try:
        await do(single, lambda: [step(alias) for step in (leave_open, insert)])
        assert f"Database {alias!r}: a handler left a transaction open" in caplog.text
        caplog.clear()
        assert await do(single, lambda: rows(alias)) == 0
        assert await do(single, lambda: connections[alias].autocommit is True)
        assert not await do(single, lambda: connections[alias].in_atomic_block)
        await do(single, lambda: insert(alias))
        assert await do(single, lambda: rows(alias)) == 1
        assert caplog.text == ""
    finally:
        await do(single, lambda: connections[alias].cursor().execute("DROP TABLE leak"))


CREATE = "CREATE TABLE leak (n integer)"


def insert(alias: str) -> None:
    """Write a row, where the connection still can."""
    if not connections[alias].closed_in_transaction:
        connections[alias].cursor().execute("INSERT INTO leak VALUES (1)")


def rows(alias: str) -> int:
    """Count the rows."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM leak")
        return int(cursor.fetchone()[0])


async def test_committed_work_stays(
    single: Threads, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction that ends as it should is nobody's business."""

    def create() -> None:
        with transaction.atomic(alias):
            connections[alias].cursor().execute(CREATE)

    await do(single, create)
    assert await do(single, lambda: rows(alias)) == 0
    await do(single, lambda: connections[alias].cursor().execute("DROP TABLE leak"))
    assert caplog.text == ""


@override_settings(DEBUG=True)
async def test_query_log_ends_with_the_message(single: Threads, alias: str) -> None:
    """In DEBUG a message sees its own queries, not those of all before."""
    for _ in range(3):
        await do(single, lambda: select(alias))
    seen = await do(single, lambda: (select(alias), connections[alias].queries)[1])
    assert [query["sql"] for query in seen] == ["SELECT 1"]


async def test_failed_query_costs_no_connection(single: Threads, alias: str) -> None:
    """A connection on which a query failed is kept where it still works."""
    first = await do(single, lambda: raw(alias))
    failed = await do(single, lambda: connections[alias].cursor().execute("SELECT x"))
    assert isinstance(failed, DatabaseError)
    assert await do(single, lambda: raw(alias)) is first


async def test_idle_connection_is_tried_first(
    single: Threads, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that died while the thread was idle fails no message."""
    monkeypatch.setattr(hygiene, "IDLE_BEFORE_CHECK", -1.0)
    await do(single, lambda: raw(alias).close())
    assert await do(single, lambda: select(alias)) == 1


async def test_busy_thread_is_not_checked(
    single: Threads, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between messages that follow each other closely nothing is asked."""
    await do(single, lambda: select(alias))

    connection = await do(single, lambda: connections[alias])
    monkeypatch.setattr(connection, "is_usable", None)
    for _ in range(10):
        assert await do(single, lambda: select(alias)) == 1


async def test_shared_connection_is_left_alone(
    single: Threads, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that a test lends to its threads keeps the test's transaction."""
    lent = connections[alias].copy()
    lent.inc_thread_sharing()

    def use() -> bool:
        connections[alias] = lent
        open_by_atomic(alias)
        return lent.in_atomic_block

    assert await do(single, use)
    assert await do(single, lambda: connections[alias].in_atomic_block)
    await do(single, lambda: connections[alias].set_rollback(True))
    await do(single, lambda: lent.atomic_blocks[-1].__exit__(None, None, None))
    await do(single, lent.close)
    assert caplog.text == ""


async def test_stopped_threads_close_their_connections(alias: str) -> None:
    """No connection is open after stop()."""
    pool = Threads(2, asyncio.get_running_loop())
    seen = [await do(pool, lambda: (raw(alias), connections[alias])[1])]
    assert pool.stop(PATIENCE)
    assert [connection.connection for connection in seen] == [None]


async def test_thread_at_rest_closes_old_connections(alias: str) -> None:
    """A connection is closed when its age is reached, message or not."""
    pool = Threads(1, asyncio.get_running_loop(), database_max_age=0.1)
    connection = await do(pool, lambda: (raw(alias), connections[alias])[1])
    async with asyncio.timeout(PATIENCE):
        while connection.connection is not None:  # noqa: ASYNC110 - a thread's status
            await asyncio.sleep(0.01)
    assert await do(pool, lambda: select(alias)) == 1
    assert pool.stop(PATIENCE)


async def test_language_ends_and_cache_stays_beside_a_database(
    single: Threads, alias: str
) -> None:
    """Over ten rounds: isolated languages, one cache object, one connection."""
    seen = set()
    for _ in range(10):
        assert await do(single, translation.get_language) == "en"
        await do(single, lambda: translation.activate("de"))
        seen.add(await do(single, lambda: (id(raw(alias)), id(caches["default"]))))
    assert len(seen) == 1


async def test_hygiene_without_the_private_names(
    alias: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where asgiref renames its storage, Django's public way finds connections."""
    monkeypatch.setattr(hygiene, "_storage", lambda handler: None)
    pool = Threads(1, asyncio.get_running_loop())
    first = await do(pool, lambda: raw(alias))
    assert await do(pool, lambda: raw(alias)) is first
    await do(pool, lambda: open_by_atomic(alias))
    assert "left a transaction open" in caplog.text
    assert pool.stop(PATIENCE)


async def test_async_orm_of_a_lease_is_tidied(
    single: Threads, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A database thread that is given back is tidied like after any message."""
    async with single.database_thread():
        await asgiref.sync.sync_to_async(open_by_atomic)(alias)
    assert not await do(single, lambda: connections[alias].in_atomic_block)
    assert "left a transaction open" in caplog.text
