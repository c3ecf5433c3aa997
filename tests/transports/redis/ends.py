"""The two ends of a Redis wire, opened for one test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import hiredis
import pytest

from django_microservices.exceptions import TransportRefused
from django_microservices.transports import Transport
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisTransport,
)
from django_microservices.wire.messages import UNSET, Subscription
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status
from tests.transports.peers import Calls, Delivery, Service

Streams = Callable[..., RedisStreamsTransport]


def unheard(_: Status) -> None:
    """Take a status; Redis tells none."""


def subscriptions(*patterns: Any, kind: str = "request") -> list[Subscription]:
    """Listen for these patterns."""
    return [Subscription(Pattern.of(pattern), kind) for pattern in patterns]


@asynccontextmanager
async def serving(
    transport: Transport, service: Service, *patterns: Any, limit: int = 100
) -> AsyncIterator[Any]:
    """Serve patterns inside the block; gives the intake."""
    block = transport.serve(subscriptions(*patterns), service, unheard, limit=limit)
    async with block as intake:
        yield intake


@asynccontextmanager
async def linked(transport: Transport) -> AsyncIterator[Any]:
    """Connect inside the block; gives the replies that come, with the link."""
    calls: Any = Calls()
    async with transport.connect(calls, unheard) as link:
        calls.link = link
        yield calls


class StandIn:
    """A server that is no Redis: it answers each command as the test says."""

    def __init__(self, port: int, answer: Callable[[list[bytes]], bytes]) -> None:
        self.port = port
        self.answer = answer
        self.asked: list[list[bytes]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let everybody go."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.append(writer)
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while (words := commands.gets()) is not False:
                self.asked.append(words)
                writer.write(self.answer(words))


def modern(words: list[bytes]) -> bytes:
    """Answer as a Redis does that is alone."""
    if words[0] == b"HELLO":
        return (
            b"*4\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        )
    return b"+OK\r\n"


def busy(words: list[bytes]) -> bytes:
    """Answer as a Redis does in which a script has begun to run for too long."""
    if words[0] == b"SUBSCRIBE":
        return b"-BUSY Redis is busy running a script.\r\n"
    return modern(words)


def hold(_: Delivery) -> None:
    """Answer nothing."""


def fail(delivery: Delivery) -> None:
    """Have it tried again."""
    delivery.end("retry", "it failed")


def settle(delivery: Delivery, outcome: str, reason: str) -> None:
    """Give the handler's own verdict."""
    assert delivery.message.settle is not None
    delivery.message.settle(outcome, None, reason)


async def listeners(spy: Any, channel: str) -> int:
    """Count who listens to a channel."""
    ((_, count),) = await spy.pubsub_numsub(channel)
    return int(count)


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again and again, until it is so; return what was found."""
    async with asyncio.timeout(10):
        while not (found := await condition()):  # noqa: ASYNC110 - Redis decides
            await asyncio.sleep(0.005)
        return found


async def is_silent(spy: Any, name: str) -> bool:
    """Whether nobody listens to a channel."""
    return await listeners(spy, name) == 0


async def is_unheard(spy: Any, name: str) -> bool:
    """Whether nobody listens to the answers."""
    return await listeners(spy, f"{name}.reply") == 0


async def is_heard(spy: Any, name: str) -> bool:
    """Whether one client listens to the answers."""
    return await listeners(spy, f"{name}.reply") == 1


async def pending(spy: Any, name: str, group: str = "orders") -> int:
    """Count what is delivered and not settled."""
    return int((await spy.xpending(name, group))["pending"])


async def nothing_pending(spy: Any, name: str) -> bool:
    """Whether all is settled."""
    return not await pending(spy, name)


async def has_pending(spy: Any, name: str, group: str, count: int) -> bool:
    """Whether so much is delivered to a group and not settled."""
    return await pending(spy, name, group) == count


async def dead(spy: Any, name: str) -> list[dict[bytes, bytes]]:
    """Return the fields of the dead letters."""
    return [fields for _, fields in await spy.xrange(f"{name}.dead")]


async def emit(calls: Any, pattern: str, data: bytes = b"1", **more: Any) -> None:
    """Emit, and wait until Redis has it."""
    await calls.send(pattern, data, UNSET, **more)


async def idle_for(spy: Any, name: str, least: int, most: int = 10**6) -> bool:
    """Whether the least idle entry is so for so many milliseconds."""
    found = await spy.xpending_range(name, "orders", "-", "+", 10)
    return bool(
        found and least <= min(e["time_since_delivered"] for e in found) <= most
    )


async def refreshed(spy: Any, name: str) -> None:
    """Wait until a consumer has said thrice that its entries are still its own."""
    for _ in range(3):
        await until(lambda: idle_for(spy, name, 60))
        await until(lambda: idle_for(spy, name, 0, 59))


async def refusal(
    kind: type[Exception] = TransportRefused, **options: Any
) -> Exception:
    """Return the error with which connecting ends."""
    with pytest.raises(kind) as caught:
        async with linked(RedisTransport(**options)):
            pass
    return caught.value
