"""What the tests of the Redis wires have: names of their own, transports, a spy."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisTransport,
)
from django_microservices.wire.messages import new_id
from tests.brokers.redis import Redis

from .ends import StandIn, Streams


@pytest.fixture
def name() -> str:
    """A pattern that no other test has."""
    return f"t{new_id()}"


@pytest.fixture
def wire(redis_server: Redis) -> Callable[..., RedisTransport]:
    """Return a function that makes a transport to the tests' Redis."""
    return lambda **options: RedisTransport(url=redis_server.url, **options)


@pytest.fixture
def streams(redis_server: Redis) -> Streams:
    """Return a function that makes a transport by the streams of the tests' Redis."""

    def make(**options: Any) -> RedisStreamsTransport:
        defaults: dict[str, Any] = {"group": "orders", "redelivery_delay": 0.01}
        return RedisStreamsTransport(url=redis_server.url, **defaults | options)

    return make


@pytest.fixture
async def spy(redis_server: Redis) -> AsyncIterator[Any]:
    """A client of redis-py, to look with."""
    async with redis.asyncio.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def user(redis_server: Redis, name: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return a function that makes a user with ACL rules: the options of a login."""

    def make(*rules: str) -> dict[str, Any]:
        redis_server.execute("ACL", "SETUSER", name, "on", ">pass", *rules)
        return {"username": name, "password": "pass"}

    yield make
    redis_server.execute("ACL", "DELUSER", name)


@pytest.fixture
def limited(wire: Any, user: Any) -> Callable[..., RedisTransport]:
    """Return a function that makes a transport whose user may do little."""
    return lambda *rules: wire(**user(*rules))


@pytest.fixture
def limited_streams(streams: Streams, user: Any) -> Streams:
    """Return a function that makes one by streams whose user may do little."""
    return lambda *rules: streams(**user(*rules))


@pytest.fixture
def stand_in(free_port: Callable[[], int]) -> Callable[..., StandIn]:
    """Return a function that makes a server which answers as it is told."""
    return lambda answer: StandIn(free_port(), answer)
