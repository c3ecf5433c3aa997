"""What a server makes of signals, handlers and databases that fail.

Rows 24 (one process), 28, 29 and 31 to 33.
"""

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connections, transaction
from pytest_django import DjangoDbBlocker

from django_microservices import (
    ConnectionLost,
    NotConnected,
    RemoteError,
    message_pattern,
)
from django_microservices.concurrency.threads import Threads
from django_microservices.endpoints.client import Client
from django_microservices.runtime import microservice as microservice_module
from django_microservices.transports.tcp import TCPTransport
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from tests.brokers.fixtures import django_database
from tests.brokers.postgres import Postgres
from tests.endpoints.ends import calling, running, server_of, serving, until
from tests.faults.processes import process_serving

Ports = Callable[[], int]
THREADS = 8


@message_pattern("echo")
def echo(data: Any) -> Any:
    """Return what came."""
    return data


# --- row 24: a signal under load --------------------------------------------------


class Load:
    """Calls without a pause, and keeps how they ended."""

    def __init__(self, client: Client, pattern: str) -> None:
        self.client = client
        self.pattern = pattern
        self.answered = 0
        self.wrong: list[Any] = []
        self.errors: list[BaseException] = []

    async def run(self, number: int) -> None:
        """Call until the server is gone."""
        while True:
            number += 1
            try:
                answer = await self.client.asend(self.pattern, number)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)
                return
            self.answered += 1
            if answer != number:
                self.wrong.append(answer)


@pytest.mark.parametrize("pattern", ["echo", "slow", "sync"])
async def test_signal_under_load(free_port: Ports, pattern: str) -> None:
    """24: After SIGTERM all that was accepted is answered; then it ends with 0."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        load = Load(client, pattern)
        callers = asyncio.gather(*(load.run(n) for n in range(100)))
        await until(lambda: load.answered > 300)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(callers, 30)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    # What came too late was never sent: nothing that was sent is lost.
    assert {type(error) for error in load.errors} == {NotConnected}
    assert load.wrong == []


async def test_signal_with_a_stranger(free_port: Ports) -> None:
    """24: A peer that knows nothing of goodbyes gets all its answers, then the end."""
    port = free_port()
    async with process_serving(port) as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(200):
            packet = {"pattern": "slow", "data": number, "id": str(number)}
            writer.write(frame(json.dumps(packet).encode()))
        await writer.drain()
        process.send_signal(signal.SIGTERM)
        framing, replies = JsonSocket(1024 * 1024), []
        async with asyncio.timeout(30):
            while data := await reader.read(65536):
                replies += [json.loads(text) for text in framing.receive(data)]
        writer.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert sorted(int(reply["id"]) for reply in replies) == [*range(200)]
    assert all(int(reply["id"]) == reply["response"] for reply in replies)


async def test_second_signal(free_port: Ports) -> None:
    """24: A second signal ends it at once."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        await client.asend("echo")
        call = asyncio.ensure_future(client.asend("hang"))
        await asyncio.sleep(0.05)
        lost = asyncio.Event()
        client.on("disconnect", lost.set)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(lost.wait(), 10)  # it said goodbye, and drains
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 130
        with pytest.raises(ConnectionLost):
            await call


# --- row 28: handlers that raise --------------------------------------------------


async def test_handlers_that_raise(free_port: Ports) -> None:
    """28: Each failure is answered, redacted; the messages beside it are unaffected."""

    @message_pattern("fail")
    def fail(data: int) -> int:
        if data % 2:
            raise ZeroDivisionError(f"SELECT secret_{data} FROM /etc/passwd")
        return data

    @message_pattern("afail")
    async def afail(data: int) -> int:
        return fail(data)

    port = free_port()
    async with serving(port, fail, afail) as server, calling(port) as client:
        calls = [
            client.asend(pattern, number)
            for pattern in ("fail", "afail")
            for number in range(200)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert not server.in_flight
    errors = [answer for answer in answers if isinstance(answer, RemoteError)]
    assert [a for a in answers if isinstance(a, int)] == [*range(0, 200, 2)] * 2
    assert len(errors) == 200
    internal = {"status": "error", "message": "Internal server error"}
    assert all(error.error == internal for error in errors)


# --- row 29: handlers that hang ---------------------------------------------------


async def test_hanging_async_handlers(free_port: Ports) -> None:
    """29: 100 hung handlers in 100 places: others are served after the timeout."""
    cancelled: list[int] = []

    @message_pattern("hang", timeout=0.3)
    async def hang(data: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(data)

    port = free_port()
    async with (
        serving(port, hang, echo, concurrency=100) as server,
        calling(port) as client,
    ):
        calls = [asyncio.ensure_future(client.asend("hang", n)) for n in range(100)]
        await until(lambda: len(server.in_flight) == 100)
        assert await client.asend("echo", 7) == 7
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(error) for error in errors} == {"The handler ran out of time."}
    assert (len(cancelled), server.timed_out) == (100, 100)


async def test_hanging_sync_handlers(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """29: When every thread hangs, others take their place; they are counted."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.05)
    monkeypatch.setattr(microservice_module, "STUCK_AFTER", 0.1)
    go_on = threading.Event()

    @message_pattern("hang")
    def hang(data: int) -> None:
        assert go_on.wait(30)

    port = free_port()
    server = server_of(TCPTransport(port=port), hang, echo, concurrency=4)
    async with running(server, threads=4) as microservice, calling(port) as client:
        calls = (client.asend("hang", n, timeout=0.1) for n in range(4))
        await asyncio.gather(*calls, return_exceptions=True)
        assert await client.asend("echo", 7) == 7
        await until(lambda: microservice.stuck == 4)
        assert isinstance(server.threads, Threads)
        assert server.threads.busy == 4
        go_on.set()
        await until(lambda: microservice.stuck == 0)


# --- databases --------------------------------------------------------------------


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


async def ask(client: Client, pattern: str, count: int) -> list[Any]:
    """Call so many times, 32 at once; return answers and errors."""
    answers: list[Any] = []
    for _ in range(0, count, 32):
        calls = (client.asend(pattern, 0) for _ in range(32))
        answers += await asyncio.gather(*calls, return_exceptions=True)
    return answers


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
    free_port: Ports, postgres: Postgres, postgres_alias: str
) -> None:
    """31: PostgreSQL sees no more connections than threads, all idle; then none."""

    @message_pattern("use")
    def use(data: int) -> int:
        return one(postgres_alias)

    port = free_port()
    before = len(backends(postgres))
    async with serving(port, use, threads=THREADS), calling(port) as client:
        await ask(client, "use", 1000)
        states = backends(postgres)
        assert 0 < len(states) - before <= THREADS
        assert "idle in transaction" not in states
    await until(lambda: len(backends(postgres)) == before)


async def test_connections_of_hanging_threads(
    free_port: Ports,
    postgres: Postgres,
    postgres_alias: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """31: There are never more connections than threads and those that hang."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(microservice_module, "STUCK_AFTER", 0.02)
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
    free_port: Ports, private_postgres: Postgres, mortal_alias: str
) -> None:
    """33: After a restart at most one message of each thread fails, in each round."""

    @message_pattern("use")
    def use(data: int) -> int:
        return one(mortal_alias)

    port = free_port()
    async with serving(port, use, threads=THREADS), calling(port) as client:
        for _ in range(2):
            assert set(await ask(client, "use", 200)) == {1}
            await asyncio.to_thread(private_postgres.restart)
            answers = await ask(client, "use", 200)
            failed = [a for a in answers if isinstance(a, RemoteError)]
            assert len(failed) <= THREADS
            assert set(await ask(client, "use", 200)) == {1}


async def test_connections_terminated(
    free_port: Ports, postgres: Postgres, postgres_alias: str
) -> None:
    """33: So it is when the database ends the connections."""

    @message_pattern("use")
    def use(data: int) -> int:
        return one(postgres_alias)

    port = free_port()
    async with serving(port, use, threads=THREADS), calling(port) as client:
        for _ in range(4):
            assert set(await ask(client, "use", 200)) == {1}
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            answers = await ask(client, "use", 200)
            assert sum(isinstance(a, RemoteError) for a in answers) <= THREADS


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
