"""One connection to Redis: what a tick writes, a Redis that is behind, or mute."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports import stream as stream_module
from django_microservices.transports.redis import RedisTransport
from django_microservices.transports.redis import connection as connections
from django_microservices.transports.redis.connection import Connection
from django_microservices.transports.redis.protocol import ReplyError, command
from django_microservices.transports.stream import EAGER, Drained
from django_microservices.wire.messages import UNSET
from tests.brokers.redis import Redis
from tests.transports.peers import Service, eventually

from .ends import StandIn, linked, modern, serving


class Ended(list[str]):
    """The reasons with which a connection ended."""


async def connected(port: int) -> tuple[Connection, Ended]:
    """Open one connection."""
    loop, ended = asyncio.get_running_loop(), Ended()
    connection = Connection(loop, ended.append)
    await loop.create_connection(lambda: connection, "127.0.0.1", port)
    return connection, ended


@pytest.fixture
def port(redis_server: Redis) -> int:
    """That of the tests' Redis."""
    return redis_server.ours.port


async def test_answers_come_in_turn(port: int) -> None:
    """Each command gets its own answer, also a refusal."""
    connection, _ = await connected(port)
    answers: list[Any] = []
    for number in range(100):
        connection.send(command("ECHO", number), answers.append)
    with pytest.raises(ReplyError, match="unknown command"):
        await connection.ask("NO", "SUCH")
    assert answers == [b"%d" % number for number in range(100)]
    await connection.close()


async def test_what_a_tick_writes_goes_together(port: int) -> None:
    """Few commands are written once, very many in parts."""
    connection, _ = await connected(port)
    written: list[bytes] = []

    class Transport:
        write = written.append
        abort = connection.transport.abort

    real = connection.transport
    connection.transport = Transport()  # type: ignore[assignment]
    for _ in range(3):
        connection.send(command("PING"))
    connection.flush()
    for _ in range(EAGER + 1):
        connection.send(command("PING"))
    connection.flush()
    connection.flush()
    counts = [data.count(b"PING") for data in written]
    assert counts == [3, EAGER, 1]
    connection.transport = real
    connection.abort("done")


async def test_end_is_told_to_all_who_wait(port: int) -> None:
    """Whoever waits for an answer gets the reason, and so does who asks later."""
    connection, ended = await connected(port)
    answers: list[Any] = []
    asked = connection.ask("BLPOP", "nothing", 0)
    connection.send(command("PING"), answers.append)
    connection.send(command("PING"))
    connection.abort("enough")
    connection.abort("again")
    assert (list(ended), str(answers[0])) == (["enough"], "enough")
    for future in (asked, connection.ask("PING")):
        with pytest.raises(ConnectionLost, match="enough"):
            await future
    connection.send(command("PING"), answers.append)
    assert len(answers) == 1
    await connection.close()
    connection.pause_reading()
    connection.resume_reading()


async def test_who_gave_up_is_not_told(port: int) -> None:
    """An answer that nobody awaits any more is let go."""
    connection, _ = await connected(port)
    asked = connection.ask("PING")
    asked.cancel()
    assert await connection.ask("ECHO", "x") == b"x"
    await connection.close()


async def test_nonsense_ends_the_connection(free_port: Callable[[], int]) -> None:
    """Bytes that are no Redis end the connection, and the reason is said."""
    async with StandIn(free_port(), lambda _: b"HTTP/1.1\r\n") as server:
        connection, ended = await connected(server.port)
        with pytest.raises(ConnectionLost, match="Protocol error"):
            await connection.ask("PING")
        assert "Protocol error" in ended[0]


# --- a Redis that is behind ---


async def test_emit_waits_for_a_redis_that_is_behind(
    private_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis does not read, there is something to wait for."""
    async with linked(RedisTransport(url=private_redis.url)) as calls:
        private_redis.freeze()
        waiting = None
        async with asyncio.timeout(30):
            while waiting is None:
                waiting = calls.send("x", b'"%b"' % (b"x" * 500_000), UNSET)
                await asyncio.sleep(0)
        assert isinstance(waiting, Drained)
        waiters = [asyncio.ensure_future(calls.link.pub.drained()) for _ in range(2)]
        await asyncio.sleep(0)
        private_redis.thaw()
        async with asyncio.timeout(30):
            await waiting
            await asyncio.gather(*waiters)


async def test_redis_that_never_reads_is_left(
    private_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it may leave unread is bounded; who waits gets the reason."""
    monkeypatch.setattr(Connection, "most_unread", 1_000_000)
    monkeypatch.setattr(stream_module, "UNREAD_PATIENCE", 0.05)
    async with linked(RedisTransport(url=private_redis.url)) as calls:
        private_redis.freeze()
        waiting: Any = None
        for _ in range(60):  # more than the kernel takes
            waiting = calls.send("x", b'"%b"' % (b"x" * 500_000), UNSET)
        await asyncio.wait((calls.link.closed,), timeout=30)
        assert "more than 1000000 bytes unread" in str(calls.link.closed.result())
        with pytest.raises(ConnectionLost, match="unread"):
            await waiting
        private_redis.thaw()


# --- a mute Redis ---


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be quick to suspect."""
    monkeypatch.setattr(connections, "SILENCE", 0.15)
    monkeypatch.setattr(connections, "PATIENCE", 0.15)


@pytest.mark.usefixtures("hasty")
async def test_frozen_redis_is_left(private_redis: Redis) -> None:
    """Both ends find out, though the connections stand; leaving does not hang."""
    transport = RedisTransport(url=private_redis.url)
    async with serving(transport, Service(), "x") as intake, linked(transport) as calls:
        private_redis.freeze()
        async with asyncio.timeout(10):
            for closed in (intake.closed, calls.link.closed):
                assert "Redis was silent for" in str(await closed)
    private_redis.thaw()


async def asked_and_kept(connection: Connection) -> None:
    """Act as if it had long been silent; return when it has been heard again."""
    connection.heard = 0.0
    assert connection._check() == connections.PATIENCE
    await eventually(lambda: connection.heard > 0)
    assert 0 < connection._check() <= connections.SILENCE


async def test_quiet_redis_is_asked(free_port: Callable[[], int]) -> None:
    """One that answers is kept, on both connections, however quiet it is."""
    async with (
        StandIn(free_port(), modern) as server,
        linked(RedisTransport(port=server.port)) as calls,
    ):
        for connection in (calls.link.pub, calls.link.sub) * 3:
            await asked_and_kept(connection)
        assert server.asked.count([b"PING"]) == 6
        assert not calls.link.closed.done()


async def test_our_own_deafness_is_no_silence(port: int) -> None:
    """While we do not read, that nothing is heard says nothing."""
    connection, _ = await connected(port)
    connection.pause_reading()
    connection.heard = 0.0
    assert connection._check() == connections.SILENCE
    connection.resume_reading()
    assert connection.loop.time() - connection.heard < connections.SILENCE
    assert await connection.ask("ECHO", "x") == b"x"
    await connection.close()
