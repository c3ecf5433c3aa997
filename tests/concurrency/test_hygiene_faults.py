"""What the faults of a real PostgreSQL cost the threads."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency import hygiene
from django_microservices.concurrency.threads import Threads
from tests.brokers.fixtures import django_database
from tests.brokers.postgres import Postgres

from .work import PATIENCE, do_all, open_by_sql, select

COUNT = 4


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
