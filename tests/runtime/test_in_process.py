"""Servers for the length of one call."""

import asyncio
from typing import Any

import pytest

from django_microservices import event_pattern
from django_microservices.endpoints.server import Server
from django_microservices.runtime.in_process import serving
from django_microservices.transports import MemoryTransport
from django_microservices.wire.status import Status
from tests.endpoints.ends import client_of, server_of

threads: list[Any] = []


@event_pattern("noted")
def note(data: Any) -> None:
    """Take an event."""
    threads.append(data)


@pytest.fixture
def transport() -> MemoryTransport:
    """Give a wire that nobody serves."""
    return MemoryTransport(name="in_process")


@pytest.fixture
def servers(transport: MemoryTransport) -> list[Server]:
    """Give what would serve it."""
    return [server_of(transport, note)]


async def test_served_inside(transport: MemoryTransport, servers: list[Server]) -> None:
    """The servers run inside the block, and not beyond it."""

    async def find() -> list[Server]:
        return servers

    async with serving(transport, find):
        assert transport.is_served()
        await client_of(transport).aemit("noted", 1)
    assert threads.pop() == 1
    assert not transport.is_served()
    assert servers[0].status == Status.CLOSED


async def test_served_already(transport: MemoryTransport) -> None:
    """Where a server runs on this loop, no other one is looked for."""

    async def find() -> list[Server]:
        raise NotImplementedError

    async with transport.serve((), lambda *_: None, lambda *_: None, limit=1):  # type: ignore[arg-type]
        async with serving(transport, find):
            assert transport.is_served()
        assert transport.is_served()


async def test_stopped_by_an_error(
    transport: MemoryTransport, servers: list[Server]
) -> None:
    """They stop however the block ends."""

    async def find() -> list[Server]:
        return servers

    with pytest.raises(asyncio.CancelledError):
        async with serving(transport, find):
            raise asyncio.CancelledError
    assert not transport.is_served()
