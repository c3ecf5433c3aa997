"""More at once than a broker may leave unread for long, which it reads in time."""

import asyncio
from typing import Any

import pytest

from django_microservices import event_pattern
from django_microservices.transports import NATSTransport, RedisTransport
from django_microservices.transports.base import Transport
from django_microservices.transports.stream import UNREAD
from tests.brokers.nats import NATS
from tests.brokers.redis import Redis
from tests.endpoints.ends import client_of, running, server_of, until

MB = 1024 * 1024
ALL = UNREAD + 12 * MB  # the kernel takes some of it; Redis gives up on 32 MB
SIZES = {"burst": [MB // 2] * (2 * ALL // MB), "message": [ALL]}


async def arrives(transport: Transport, sizes: list[int]) -> None:
    """See that texts of these sizes, all emitted at once, all arrive."""
    seen: list[int] = []

    @event_pattern("noted")
    async def noted(data: str) -> None:
        seen.append(len(data))

    client = client_of(transport)
    lost: list[Any] = []
    client.on("disconnect", lambda: lost.append(1))
    async with running(server_of(transport, noted)):
        await client.aconnect()
        await asyncio.gather(*(client.aemit("noted", "x" * size) for size in sizes))
        await until(lambda: len(seen) == len(sizes))
        assert (seen, lost) == (sizes, [])
        await client.aclose()


@pytest.mark.parametrize("kind", SIZES)
async def test_redis(redis_server: Redis, kind: str) -> None:
    """Redis reads a burst, and one message that is as large."""
    wire = RedisTransport(url=redis_server.url, max_frame_size=2 * UNREAD)
    await arrives(wire, SIZES[kind])


async def test_nats(nats_server: NATS) -> None:
    """So does NATS, whose messages are smaller and which reads faster."""
    await arrives(NATSTransport(url=nats_server.url), 2 * SIZES["burst"])
