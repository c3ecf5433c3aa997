"""What a server makes of databases, and of handlers that use them badly.

Rows 31 to 33.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections, transaction
from pytest_django import DjangoDbBlocker

from django_microservices import RemoteError, message_pattern
from django_microservices.endpoints.client import Client
from django_microservices.transports.tcp import TCPTransport
from tests.brokers.fixtures import django_database
from tests.brokers.postgres import Postgres
from tests.conftest import Figures
from tests.endpoints.ends import calling, running, server_of, serving, until

Ports = Callable[[], int]
THREADS = 8


@pytest.fixture
def sqlite(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Give the alias of an SQLite database, without a transaction around the test."""
    with django_db_blocker.unblock():
        yield "default"
        connections.close_all()


@pytest.fixture(params=["sqlite", "postgres_alias"])
def alias(request: pytest.FixtureRequest) -> str:
    """Give the alias of each kind of database in turn."""
    alias: str = request.getfixturevalue(request.param)
    return alias


def one(alias: str) -> int:
    """Ask the database something."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        value: int = cursor.fetchone()[0]
        return value


@asynccontextmanager
async def using(port: int, alias: str) -> AsyncIterator[Client]:
    """Serve a handler that asks the database something; give who calls it."""

    @message_pattern("use")
    def use(data: int) -> int:
        return one(alias)

    async with serving(port, use, threads=THREADS), calling(port) as client:
        yield client


async def ask(client: Client, pattern: str, count: int) -> list[Any]:
    """Call so many times, 32 at once; return answers and errors."""
    answers: list[Any] = []
    for _ in range(0, count, 32):
        calls = (client.asend(pattern, 0) for _ in range(32))
        answers += await asyncio.gather(*calls, return_exceptions=True)
    return answers


def failures(answers: list[Any]) -> int:
    """Count the calls that failed at the handler."""
    return sum(isinstance(answer, RemoteError) for answer in answers)


def backends(postgres: Postgres) -> list[str]:
    """Return the state of each connection to PostgreSQL but the asking one."""
    rows = postgres.execute(
        "SELECT state FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return [str(state) for (state,) in rows]


# --- row 31: connections ----------------------------------------------------------


async def test_connections_of_threads(free_port: Ports, alias: str) -> None:
    """31: However many messages use a database, each thread has one connection."""
    seen: set[tuple[int, int]] = set()

    @message_pattern("use")
    def use(data: int) -> int:
        value = one(alias)
        seen.add((threading.get_ident(), id(connections[alias].connection)))
        return value

    port = free_port()
    async with serving(port, use, threads=THREADS), calling(port) as client:
        assert set(await ask(client, "use", 1000)) == {1}
    assert len(seen) <= THREADS
    assert len({thread for thread, _ in seen}) == len(seen)


async def test_connections_to_postgres(
    free_port: Ports, postgres: Postgres, postgres_alias: str, figure: Figures
) -> None:
    """31: PostgreSQL sees no more connections than threads, all idle; then none."""
    before = len(backends(postgres))
    async with using(free_port(), postgres_alias) as client:
        await ask(client, "use", 1000)
        states = backends(postgres)
        opened = len(states) - before
        assert 0 < opened <= THREADS
        figure("31: connections to PostgreSQL a thread", opened / THREADS, 1, "")
        assert "idle in transaction" not in states
    await until(lambda: len(backends(postgres)) == before)


@pytest.mark.usefixtures("watchful")
async def test_connections_of_hanging_threads(
    free_port: Ports, postgres: Postgres, postgres_alias: str
) -> None:
    """31: There are never more connections than threads and those that hang."""
    go_on = threading.Event()

    @message_pattern("use")
    def use(data: int) -> int:
        return one(postgres_alias)

    @message_pattern("hang", timeout=0.02)
    def hang(data: int) -> None:
        one(postgres_alias)
        assert go_on.wait(30)

    port = free_port()
    before = len(backends(postgres))
    server = server_of(TCPTransport(port=port), use, hang)
    async with running(server, threads=2) as microservice, calling(port) as client:
        await asyncio.gather(
            *(client.asend("hang", n) for n in range(2)), return_exceptions=True
        )
        assert set(await ask(client, "use", 200)) == {1}
        assert microservice.stuck == 2
        assert len(backends(postgres)) - before <= 2 + 2
        go_on.set()
        await until(lambda: len(backends(postgres)) - before <= 2)


# --- row 32: open transactions ----------------------------------------------------


async def test_open_transactions(free_port: Ports, alias: str) -> None:
    """32: A transaction left open is rolled back; the next message has autocommit."""

    @message_pattern("leave")
    def leave(data: int) -> None:
        transaction.set_autocommit(False, using=alias)
        one(alias)

    @message_pattern("look")
    def look(data: int) -> bool:
        one(alias)
        return transaction.get_autocommit(using=alias)

    port = free_port()
    async with serving(port, leave, look, threads=2), calling(port) as client:
        for _ in range(5):
            await ask(client, "leave", 32)
            assert set(await ask(client, "look", 32)) == {True}


async def test_open_transactions_at_postgres(
    free_port: Ports, postgres: Postgres, postgres_alias: str
) -> None:
    """32: Nor does PostgreSQL see one idle in transaction."""

    @message_pattern("leave")
    def leave(data: int) -> None:
        transaction.set_autocommit(False, using=postgres_alias)
        one(postgres_alias)

    port = free_port()
    async with serving(port, leave, threads=THREADS), calling(port) as client:
        await ask(client, "leave", 320)
        assert "idle in transaction" not in backends(postgres)


# --- row 33: the database dies and returns ----------------------------------------


@pytest.fixture
def mortal_alias(
    private_postgres: Postgres, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """Give the alias of a database that the test may stop."""
    with (
        django_db_blocker.unblock(),
        django_database("mortal", private_postgres.settings) as alias,
    ):
        yield alias


async def test_database_restarts(
    free_port: Ports, private_postgres: Postgres, mortal_alias: str, figure: Figures
) -> None:
    """33: After a restart at most one message of each thread fails, in each round."""
    async with using(free_port(), mortal_alias) as client:
        for _ in range(2):
            assert set(await ask(client, "use", 200)) == {1}
            await asyncio.to_thread(private_postgres.restart)
            failed = failures(await ask(client, "use", 200))
            figure("33: messages a thread that fail", failed / THREADS, 1, "")
            assert failed <= THREADS
            assert set(await ask(client, "use", 200)) == {1}


async def test_database_restarts_under_async_handlers(
    free_port: Ports, private_postgres: Postgres, mortal_alias: str
) -> None:
    """33: Of async handlers, which share Django's thread, at most one fails."""

    @message_pattern("use")
    async def use(data: int) -> int:
        return await sync_to_async(one)(mortal_alias)

    port = free_port()
    async with serving(port, use), calling(port) as client:
        assert set(await ask(client, "use", 64)) == {1}
        await asyncio.to_thread(private_postgres.restart)
        assert failures(await ask(client, "use", 64)) <= 1
        assert set(await ask(client, "use", 64)) == {1}


async def test_connections_terminated(
    free_port: Ports, postgres: Postgres, postgres_alias: str
) -> None:
    """33: So it is when the database ends the connections."""
    async with using(free_port(), postgres_alias) as client:
        for _ in range(4):
            assert set(await ask(client, "use", 200)) == {1}
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            answers = await ask(client, "use", 200)
            assert failures(answers) <= THREADS


async def test_database_away(
    free_port: Ports, private_postgres: Postgres, mortal_alias: str
) -> None:
    """33: While it is away each message is answered; then all is well."""

    @message_pattern("use")
    def use(data: int) -> int:
        try:
            return one(mortal_alias)
        except (DatabaseError, InterfaceError):
            return 0

    port = free_port()
    async with serving(port, use, threads=THREADS), calling(port) as client:
        assert set(await ask(client, "use", 64)) == {1}
        await asyncio.to_thread(private_postgres.stop)
        assert set(await ask(client, "use", 64)) == {0}
        await asyncio.to_thread(private_postgres.start)
        assert (await ask(client, "use", 64)).count(0) <= THREADS
        assert set(await ask(client, "use", 64)) == {1}
