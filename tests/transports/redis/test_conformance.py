"""The Redis wires pass the public conformance suite."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_microservices.concurrency.portal import portal
from django_microservices.testing.conformance import TransportConformance
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisTransport,
)
from tests.brokers.redis import Redis


@pytest.fixture(scope="module", autouse=True)
def _portal_ends() -> Iterator[None]:
    """Stop the portal that sync callers used, so that no thread of it is left."""
    yield
    portal.stop()


@pytest.fixture(scope="module")
def own_redis(start_server: Callable[..., Redis]) -> Redis:
    """A Redis that may be stopped."""
    return start_server(Redis)


class RedisHooks:
    """What both wires let the suite do to Redis."""

    redis: Redis

    @pytest.fixture(autouse=True)
    def _server(self, own_redis: Redis) -> None:
        self.redis = own_redis

    def options(self) -> dict[str, Any]:
        """Meet at the tests' Redis."""
        return {"url": self.redis.url}

    async def break_links(self) -> None:
        """Have Redis cut every connection."""
        for kind in ("normal", "pubsub"):
            self.redis.execute("CLIENT", "KILL", "TYPE", kind)

    async def stop_broker(self) -> None:
        """Stop Redis."""
        await asyncio.to_thread(self.redis.stop)

    async def start_broker(self) -> None:
        """Start it with what it had."""
        await asyncio.to_thread(self.redis.start)


class TestRedis(RedisHooks, TransportConformance):
    """Redis' pub/sub."""

    transport = RedisTransport

    def server_options(self) -> dict[str, Any]:
        """Listen with wildcards."""
        return self.options() | {"wildcards": True}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Publish where the pattern is served."""
        self.redis.execute("PUBLISH", pattern, body)


class TestRedisStreams(RedisHooks, TransportConformance):
    """Redis' streams."""

    transport = RedisStreamsTransport

    def options(self) -> dict[str, Any]:
        """Have streams of one's own: they keep what other tests sent."""
        return super().options() | {"key_prefix": f"{self.name}:"}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Add an entry with this payload."""
        self.redis.execute("XADD", f"{self.name}:{pattern}", "*", "data", body)

    async def dead_letters(self) -> list[str]:
        """Read the dead letters of all streams of this test."""
        return [
            fields["dm-reason"]
            for name in self.redis.execute("KEYS", f"{self.name}*.dead")
            for _, fields in self.redis.execute("XRANGE", name, "-", "+")
        ]
