"""What a pool thread keeps and clears away, on SQLite and on a real PostgreSQL."""

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asgiref.sync
import pytest
import pytest_asyncio
from django.core.cache import caches
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings
from django.utils import translation
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency import hygiene
from django_microservices.concurrency.hygiene import (
    Databases,
    Isolation,
    restore_context,
    run_in_context,
)
from django_microservices.concurrency.threads import Threads
from tests.brokers.fixtures import django_database
from tests.brokers.postgres import Postgres

PATIENCE = 20.0
COUNT = 4

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def on_thread(function: Callable[[], Any]) -> Any:
    """Run a function on a fresh thread, and return its result."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(PATIENCE)
    return result[0]


# --- contexts ---------------------------------------------------------------------


def test_messages_see_nothing_of_each_other() -> None:
    """A context variable that one message sets is unset for the next."""

    def two_messages() -> str:
        isolation = Isolation()
        isolation.run(lambda: tenant.set("acme"))
        seen: list[str] = []
        isolation.run(lambda: seen.append(tenant.get()))
        return seen[0]

    assert on_thread(two_messages) == "nobody"


def test_caches_stay_on_the_thread() -> None:
    """Cache objects are made once for each thread."""

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        for _ in range(2):
            isolation.run(lambda: seen.append(caches["default"]))
        return seen

    first, second = on_thread(two_messages)
    assert first is second
    assert on_thread(two_messages)[0] is not first


def test_caches_stay_after_a_failure() -> None:
    """Cache objects of a message that raised are kept too."""

    def fail(seen: list[Any]) -> None:
        seen.append(caches["default"])
        message = "after all"
        raise ValueError(message)

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        with pytest.raises(ValueError, match="after all"):
            isolation.run(lambda: fail(seen))
        isolation.run(lambda: seen.append(caches["default"]))
        return seen

    first, second = on_thread(two_messages)
    assert first is second


def test_unused_caches_are_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that made no cache connection has none to close."""
    closed: list[int] = []
    monkeypatch.setattr(caches, "close_all", lambda: closed.append(1))
    on_thread(lambda: Isolation().close())
    assert closed == []


def test_cache_that_cannot_be_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error at the end of a thread is logged."""

    def fail() -> None:
        message = "server away"
        raise OSError(message)

    def message_and_end() -> None:
        isolation = Isolation()
        isolation.run(lambda: caches["default"])
        monkeypatch.setattr(caches, "close_all", fail)
        isolation.close()

    on_thread(message_and_end)
    assert "A cache connection could not be closed" in caplog.text


def test_callers_context_moves_to_the_thread() -> None:
    """What asgiref tags with a thread, the language, is seen on another one."""
    seen: list[str | None] = []
    with translation.override("de"):
        context = copy_context()
    on_thread(
        lambda: run_in_context(context, lambda: seen.append(translation.get_language()))
    )
    assert seen == ["de"]


def test_asgiref_has_the_private_names() -> None:
    """The names on which speed and languages rest are where this file looks."""
    assert restore_context is asgiref.sync._restore_context
    assert hygiene._storage(caches)._data is hygiene._caches_variable()
    assert hygiene._own_connections() is not None


def test_without_the_private_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asgiref renames its storage, each message makes its own cache objects."""
    monkeypatch.setattr(hygiene, "_storage", lambda handler: None)

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        for _ in range(2):
            isolation.run(lambda: seen.append(caches["default"]))
        isolation.close()
        return seen

    first, second = on_thread(two_messages)
    assert first is not second


def test_variables_move_without_the_private_helper() -> None:
    """Where asgiref renames its helper, context variables still travel."""
    tenant.set("acme")
    context = copy_context()
    tenant.set("nobody")
    hygiene._copy_variables(context)
    assert tenant.get() == "acme"


# --- databases: any ---------------------------------------------------------------


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


@pytest_asyncio.fixture
async def single() -> AsyncIterator[Threads]:
    """Give a pool of one thread."""
    pool = Threads(1, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


class Work:
    """A job that notes the result or the exception of its function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.value: Any = None

    def run(self) -> None:
        """Note the result."""
        try:
            self.value = self.function()
        except DatabaseError as error:
            self.value = error

    def finish(self) -> None:
        """Hand the result over."""
        self.ended.set_result(self.value)


async def do(threads: Threads, function: Callable[[], Any]) -> Any:
    """Run one message to its end; a database error is returned."""
    work = Work(function)
    threads.submit(work)
    return await asyncio.wait_for(work.ended, PATIENCE)


async def do_all(threads: Threads, functions: list[Callable[[], Any]]) -> list[Any]:
    """Run messages at the same time."""
    return await asyncio.gather(*(do(threads, function) for function in functions))


def select(alias: str) -> int:
    """Ask the database for 1."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


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


def open_by_sql(alias: str) -> None:
    """Begin behind Django's back."""
    connections[alias].cursor().execute("BEGIN")
    select(alias)


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


# --- databases: by hand -----------------------------------------------------------


def test_thread_without_a_database_has_nothing_to_do() -> None:
    """``opened`` is false until the thread has used a database."""
    assert on_thread(lambda: len(Databases(60.0).opened)) == 0


def test_memory_is_asked_to_close_once(django_db_blocker: DjangoDbBlocker) -> None:
    """SQLite in memory, which ignores close(), does not keep a thread awake."""

    def expire() -> tuple[float, float]:
        databases = Databases(0.0)
        select("memory")
        databases.after()
        before = databases.expires_in()
        databases.expire()
        after = databases.expires_in()
        connections["memory"].connection.close()
        return before, after

    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with django_db_blocker.unblock(), django_database("memory", settings):
        assert on_thread(expire) == (0.0, -1.0)


class Fake:
    """A connection of a driver that is none of ours."""

    vendor = "mysql"
    alias = "fake"
    allow_thread_sharing = False
    in_atomic_block = False

    def __init__(self, **options: Any) -> None:
        self.connection: Any = SimpleNamespace()
        self.settings_dict = {"AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "OPTIONS": options}
        self.queries_log: list[Any] = []
        self.close_at: float | None = 0.0

    def get_autocommit(self) -> bool:
        """Stand outside of a transaction."""
        return True

    def close_if_unusable_or_obsolete(self) -> None:
        """Stay open."""

    def is_usable(self) -> bool:
        """Be dead."""
        return False

    def close(self) -> None:
        """Fail, as the connection is gone, but be closed."""
        self.connection = None
        message = "gone"
        raise OperationalError(message)


def tidied(fake: Fake, max_age: float = 60.0) -> Fake:
    """Tidy a connection up after a message."""
    Databases(max_age)._tidy(cast("BaseDatabaseWrapper", fake))
    return fake


def test_pooled_connection_goes_back() -> None:
    """A connection from the driver's pool is not kept by the thread."""
    assert tidied(Fake(pool=True)).settings_dict["CONN_MAX_AGE"] == 0


def test_unknown_driver_is_asked_for_nothing() -> None:
    """A driver that tells nothing of its transactions is believed to have none."""
    assert tidied(Fake()).connection is not None


def test_connection_without_an_end_needs_none() -> None:
    """A connection that was never opened has no age to prolong."""
    fake = Fake()
    fake.close_at = None
    assert tidied(fake).close_at is None


def test_dead_connection_that_cannot_be_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Closing a dead connection may fail: it is closed all the same."""
    caplog.set_level(logging.INFO)
    fake = Fake()
    hygiene._check(cast("BaseDatabaseWrapper", fake))
    assert fake.connection is None
    assert "Database 'fake': a dead connection is replaced" in caplog.text


def test_failing_hygiene_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that cannot be tidied is logged and dropped."""
    fake = Fake()
    hygiene._guarded(
        cast("BaseDatabaseWrapper", fake), lambda connection: connection.close()
    )
    assert fake.connection is None
    assert "Database 'fake': connection dropped" in caplog.text


# --- databases: a real server's faults --------------------------------------------

names = (f"dm-test-{number}" for number in itertools.count())


class Service:
    """A pool on PostgreSQL whose sessions can be told from all others."""

    def __init__(self, server: Postgres, alias: str, name: str) -> None:
        self.server = server
        self.alias = alias
        self.name = name
        self.threads = Threads(COUNT, asyncio.get_running_loop())

    async def fill(self) -> None:
        """Have every thread open its connection."""
        meeting = threading.Barrier(COUNT, timeout=PATIENCE)
        await do_all(
            self.threads, [lambda: (meeting.wait(), select(self.alias))] * COUNT
        )

    async def messages(self, count: int) -> list[Any]:
        """Handle messages, all in flight at once."""
        return await do_all(self.threads, [lambda: select(self.alias)] * count)

    def sessions(self) -> list[tuple[Any, ...]]:
        """Give the state of every session on the server."""
        sql = "SELECT state FROM pg_stat_activity WHERE application_name = %s"
        return self.server.execute(sql, self.name)


@pytest_asyncio.fixture
async def service(
    postgres: Postgres, django_db_blocker: DjangoDbBlocker
) -> AsyncIterator[Service]:
    """Give a pool of four on PostgreSQL."""
    name = next(names)
    settings = {**postgres.settings, "OPTIONS": {"application_name": name}}
    with django_db_blocker.unblock(), django_database("extra", settings) as alias:
        service = Service(postgres, alias, name)
        yield service
        assert service.threads.stop(PATIENCE)


async def test_connections_never_exceed_threads(service: Service) -> None:
    """Over 2,000 messages: a session for each thread at most, none in a transaction."""
    for _ in range(10):
        await service.messages(200)
        states = service.sessions()
        assert 1 <= len(states) <= COUNT
        assert ("idle in transaction",) not in states


async def test_leaks_of_every_message_are_cleared(service: Service) -> None:
    """Where every handler leaves a transaction open, no session stays in one."""
    for _ in range(10):
        await do_all(service.threads, [lambda: open_by_sql(service.alias)] * 8)
        assert ("idle in transaction",) not in service.sessions()


async def test_sessions_end_with_the_pool(service: Service) -> None:
    """After stop() the server has no session of ours."""
    await service.fill()
    assert len(service.sessions()) == COUNT
    assert service.threads.stop(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while service.sessions():  # the server notices a little later
        assert time.monotonic() < deadline


def failures(results: list[Any]) -> int:
    """Count the messages that failed."""
    return sum(isinstance(result, Exception) for result in results)


async def test_restart_costs_one_message_a_thread(
    private_postgres: Postgres, service: Service
) -> None:
    """After the database came back each thread fails once at most, then never."""
    for _ in range(2):
        await service.fill()
        private_postgres.restart()
        assert failures(await service.messages(40)) <= COUNT
        assert failures(await service.messages(40)) == 0


async def test_restart_costs_an_idle_thread_nothing(
    private_postgres: Postgres, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was idle meanwhile looks first, and fails no message."""
    monkeypatch.setattr(hygiene, "IDLE_BEFORE_CHECK", -1.0)
    await service.fill()
    private_postgres.restart()
    assert failures(await service.messages(40)) == 0


async def test_messages_fail_while_the_database_is_away(
    private_postgres: Postgres, service: Service
) -> None:
    """Without a database every message fails at once; with it none does."""
    await service.fill()
    private_postgres.stop()
    await service.fill()
    assert failures(await service.messages(20)) == 20
    private_postgres.start()
    assert failures(await service.messages(20)) == 0


async def test_terminated_session_costs_one_message(service: Service) -> None:
    """A session that an administrator ends fails one message of its thread."""
    await service.fill()
    sql = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = %s"
    )
    assert service.server.execute(sql, service.name) == [(True,)] * COUNT
    assert failures(await service.messages(40)) <= COUNT
    assert failures(await service.messages(40)) == 0


async def test_session_that_ends_in_a_transaction(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler whose session ends inside an atomic block harms nobody after it."""

    def end_own_session() -> None:
        with transaction.atomic(service.alias):
            sql = "SELECT pg_terminate_backend(pg_backend_pid())"
            connections[service.alias].cursor().execute(sql)

    results = await do_all(service.threads, [end_own_session] * 8)
    assert failures(results) == 8
    assert failures(await service.messages(40)) == 0
    assert "left a transaction open" not in caplog.text


async def test_stream_has_its_cursor_and_transaction_on_one_thread(
    service: Service,
) -> None:
    """A generator over a server-side cursor streams, and leaves nothing when closed."""

    def numbers() -> Iterator[int]:
        with (
            transaction.atomic(service.alias),
            connections[service.alias].chunked_cursor() as cursor,
        ):
            cursor.execute("SELECT generate_series(1, 100000)")
            for (number,) in cursor:
                yield number

    stream = service.threads.stream(numbers)
    assert [await anext(stream) for _ in range(200)] == [*range(1, 201)]
    await stream.aclose()
    await service.messages(1)
    assert ("idle in transaction",) not in service.sessions()
