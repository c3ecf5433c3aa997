"""Faults of Redis under load: restarts, killed workers, a frozen server.

The bounds are ten times the figures of docs/reference/transports/redis.md.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from django_microservices import Client, event_pattern, message_pattern
from django_microservices.endpoints.config import ClientConfig
from django_microservices.endpoints.server import Server
from django_microservices.exceptions import MicroserviceError
from django_microservices.transports import Transport
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisTransport,
)
from tests.brokers.redis import Redis
from tests.endpoints.ends import running, server_of

from .redis_served import CLAIM_AFTER, PATTERN

RATE = 200  # events a second
DOWN = 0.5  # seconds
SOON = 60.0
ENDS = (Redis.stop, Redis.kill)  # SIGTERM, SIGKILL
ROOT = Path(__file__).resolve().parents[2]


class Load:
    """Emits numbers all the time; ``accepted`` are those that ``aemit`` took."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.accepted: list[int] = []
        self.refused = 0
        self._number = 0
        self._emits: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, and wait for what is on its way."""
        self._task.cancel()
        await asyncio.gather(*self._emits, self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._number += 1
            task = asyncio.create_task(self._emit(self._number))
            self._emits.add(task)
            task.add_done_callback(self._emits.discard)
            await asyncio.sleep(1 / RATE)

    async def _emit(self, number: int) -> None:
        try:
            await self.client.aemit(PATTERN, number, timeout=SOON)
        except MicroserviceError:
            self.refused += 1
        else:
            self.accepted.append(number)

    @property
    def next(self) -> int:
        """The number that is emitted next."""
        return self._number + 1


@contextlib.asynccontextmanager
async def calling(transport: Transport) -> AsyncIterator[Client]:
    """Give a client that is closed with the block."""
    config = ClientConfig(transport)
    client = Client("tested", lambda: config)
    try:
        yield client
    finally:
        await client.aclose()


async def until(condition: Callable[..., Any], *args: Any) -> float:
    """Wait until it is so; return how many seconds that took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(SOON):
        while not condition(*args):  # noqa: ASYNC110 - whatever it looks at
            await asyncio.sleep(0.005)
    return loop.time() - begun


async def restart(redis: Redis, end: Callable[[Redis], None]) -> None:
    """Have Redis be away for a while."""
    await asyncio.to_thread(end, redis)
    await asyncio.sleep(DOWN)
    await asyncio.to_thread(redis.start)


def noting(seen: list[int]) -> Callable[..., Any]:
    """Make a handler that notes the numbers."""

    @event_pattern(PATTERN)
    async def noted(data: int) -> None:
        seen.append(data)

    return noted


# --- pub/sub ---


async def test_pubsub_outlives_restarts(private_redis: Redis) -> None:
    """Two restarts under load: consuming again at once, little that was taken lost."""
    seen: list[int] = []
    transport = RedisTransport(url=private_redis.url)
    server = server_of(transport, noting(seen))
    async with running(server), calling(transport) as client:
        async with Load(client) as load:
            for end in ENDS:
                await until(lambda: len(seen) > RATE // 2)
                await restart(private_redis, end)
                back = await until(lambda first: seen[-1] >= first, load.next)
                assert back < 10 * 0.5
        await until(lambda: seen[-1] == load.accepted[-1])
    lost = set(load.accepted) - set(seen)
    assert len(lost) <= len(ENDS) * RATE * 0.3 * 10
    assert len(set(seen)) == len(seen)
    assert load.refused


async def test_requests_fail_and_come_back(private_redis: Redis) -> None:
    """A request that is pending when Redis goes fails; the next ones are answered."""
    entered: list[int] = []

    @message_pattern("hang")
    async def hang(data: int) -> None:
        entered.append(data)
        await asyncio.Event().wait()

    @message_pattern("echo")
    async def echo(data: int) -> int:
        return data

    transport = RedisTransport(url=private_redis.url)
    async with running(server_of(transport, hang, echo)), calling(transport) as client:
        for end in ENDS:
            calls = [
                asyncio.ensure_future(client.asend("hang", number, timeout=None))
                for number in range(50)
            ]
            await until(lambda: len(entered) == 50)
            await restart(private_redis, end)
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result).__name__ for result in results} == {"ConnectionLost"}
            assert await answered(client, "echo", 7) == 7
            entered.clear()


async def answered(client: Client, pattern: str, data: int) -> Any:
    """Ask until there is an answer."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                return await client.asend(pattern, data, timeout=1)
            except MicroserviceError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", [RedisTransport, RedisStreamsTransport])
async def test_frozen_redis(private_redis: Redis, kind: Any) -> None:
    """A Redis that does nothing is noticed in time, on both ends; then it goes on."""
    seen: list[int] = []
    options = {} if kind is RedisTransport else {"group": "workers"}
    transport = kind(url=private_redis.url, **options)
    server = server_of(transport, noting(seen))
    async with running(server), calling(transport) as client:
        await client.aemit(PATTERN, 1)
        await until(lambda: seen)
        private_redis.freeze()
        took = await until(lambda: not server.is_ready)
        took += await until(lambda: client.status != "connected")
        assert took <= 10
        private_redis.thaw()
        await until(lambda: server.is_ready and client.status == "connected")
        await client.aemit(PATTERN, 2)
        await until(lambda: 2 in seen)


# --- streams ---


async def test_streams_lose_nothing_in_restarts(private_redis: Redis) -> None:
    """Two restarts under load: all that ``aemit`` took is handled."""
    seen: list[int] = []
    transport = RedisStreamsTransport(
        url=private_redis.url, group="workers", claim_after=CLAIM_AFTER
    )
    server = server_of(transport, noting(seen))
    async with running(server), calling(transport) as client:
        async with Load(client) as load:
            for end in ENDS:
                await until(lambda: len(seen) > RATE // 2)
                await restart(private_redis, end)
                back = await until(lambda first: max(seen) >= first, load.next)
                assert back < 10 * 0.5
        await until(lambda: set(load.accepted) <= set(seen))
    assert len(load.accepted) > RATE // 2


@contextlib.asynccontextmanager
async def worker(redis: Redis, file: Path) -> AsyncIterator[Process]:
    """Run a worker inside the block; it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.faults.redis_served", redis.url, str(file)),
        cwd=ROOT,
        env=os.environ | {"PYTHONASYNCIODEBUG": ""},
        stdin=DEVNULL,
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SOON):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.communicate()


def noted_in(file: Path) -> list[int]:
    """Return what the workers have handled."""
    return [int(line) for line in file.read_text().split()]


def has_more(file: Path, count: int) -> bool:
    """Whether the workers have handled more than so many."""
    return len(noted_in(file)) > count


async def test_streams_lose_nothing_with_their_workers(
    private_redis: Redis, tmp_path: Path
) -> None:
    """Workers that are killed, and ended, while events flow: each event is handled."""
    file = tmp_path / "noted"
    file.touch()
    transport = RedisStreamsTransport(url=private_redis.url)
    async with calling(transport) as client, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(worker(private_redis, file))
        async with Load(client) as load:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                await until(has_more, file, len(noted_in(file)) + 20)
                second = await stack.enter_async_context(worker(private_redis, file))
                first.send_signal(number)
                async with asyncio.timeout(SOON):
                    code = await first.wait()
                assert code == (0 if number is signal.SIGTERM else -number)
                first = second
        await until(lambda: set(load.accepted) <= set(noted_in(file)))
    assert not load.refused
    again = len(noted_in(file)) - len(set(noted_in(file)))
    assert again <= 3 * 100  # three ends of a worker with at most 100 in flight


async def test_what_a_dead_worker_had_is_claimed_in_time(
    private_redis: Redis, tmp_path: Path
) -> None:
    """It is another one's soon after the limit."""
    seen: list[int] = []
    taken = private_redis.execute
    taken("XGROUP", "CREATE", PATTERN, "workers", "0", "MKSTREAM")
    for number in range(50):
        taken("XADD", PATTERN, "*", "data", number)
    taken("XREADGROUP", "GROUP", "workers", "dead", "STREAMS", PATTERN, ">")
    transport = RedisStreamsTransport(
        url=private_redis.url, group="workers", claim_after=CLAIM_AFTER
    )
    async with running(server_of(transport, noting(seen))):
        took = await until(lambda: len(seen) == 50)
    assert took < 10 * (CLAIM_AFTER + 1)


async def test_poison_holds_nobody_up(private_redis: Redis) -> None:
    """What always fails becomes a dead letter, and the others have passed it."""
    seen: list[int] = []
    tries: list[int] = []

    @event_pattern(PATTERN)
    async def noted(data: int) -> None:
        if data < 0:
            tries.append(data)
            message = "the poison"
            raise RuntimeError(message)
        seen.append(data)

    transport = RedisStreamsTransport(
        url=private_redis.url, group="workers", redelivery_delay=0.1
    )
    async with running(server_of(transport, noted)), calling(transport) as client:
        async with Load(client) as load:
            for number in range(5):
                await client.aemit(PATTERN, -1 - number)
            dead = f"{PATTERN}.dead"
            await until(lambda: private_redis.execute("XLEN", dead) == 5)
        await until(lambda: set(load.accepted) <= set(seen))
    assert len(tries) == 5 * 5
    assert len(seen) == len(load.accepted)


async def test_flushed_redis(private_redis: Redis) -> None:
    """A Redis that has forgotten everything is served as a new one."""
    seen: list[int] = []
    transport = RedisStreamsTransport(
        url=private_redis.url, group="workers", claim_after=CLAIM_AFTER
    )
    server: Server = server_of(transport, noting(seen))
    async with running(server), calling(transport) as client:
        await client.aemit(PATTERN, 1)
        await until(lambda: seen)
        private_redis.execute("FLUSHALL")
        await client.aemit(PATTERN, 2)
        await until(lambda: 2 in seen)
        assert server.is_ready
