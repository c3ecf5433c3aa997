"""Calls and streams of a client that end before their time."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_microservices import message_pattern
from django_microservices.endpoints.client import Client
from django_microservices.exceptions import StreamOverflow
from tests.endpoints.answers import HANDLERS, cancelled, closed
from tests.endpoints.ends import FakeWire, calling, serving, until


async def test_cancelled_call(port: int) -> None:
    """Cancelling a call tells the handler; the connection is as good as before."""
    async with serving(port, *HANDLERS) as server, calling(port) as client:
        await client.asend("echo")
        driver = client.unwrap()
        call = asyncio.ensure_future(client.asend("hang"))
        await until(lambda: server.in_flight)
        call.cancel()
        await until(cancelled.is_set)
        assert await client.asend("echo", 1) == 1
        assert client.unwrap() is driver


async def test_first_caller_cancelled(port: int) -> None:
    """The first caller's leaving while connecting leaves the others be."""
    async with serving(port, *HANDLERS), calling(port) as client:
        first = asyncio.ensure_future(client.asend("echo", 1))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(client.asend("echo", 2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 2


async def test_first_calls_share_one_connection(port: int) -> None:
    """Calls made while connecting open one connection (nest#13880)."""
    async with serving(port, *HANDLERS) as server, calling(port) as client:
        await asyncio.gather(*(client.asend("echo", n) for n in range(50)))
        assert server._intake is not None
        assert len(server._intake.connections) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("pattern", ["count", "acount"])
async def test_closed_stream(port: int, pattern: str) -> None:
    """Closing a stream ends the handler's generator, and its ``finally`` runs."""
    async with serving(port, *HANDLERS) as server, calling(port) as client:
        items = client.astream(pattern, 10**9)
        assert await anext(items) == 0
        await items.aclose()
        await until(lambda: closed == [pattern])
        await until(lambda: not server.in_flight)


@pytest.mark.parametrize("pattern", ["count", "acount"])
def test_closed_sync_stream(client: Client, pattern: str) -> None:
    """Leaving a sync stream ends the handler's generator too."""
    for item in client.stream(pattern, 10**9):
        assert item == 0
        break
    gc.collect()
    async_to_sync(until)(lambda: closed == [pattern])


async def test_cancelled_stream(port: int) -> None:
    """Cancelling who reads a stream ends the handler's generator."""
    async with serving(port, *HANDLERS), calling(port) as client:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in client.astream("stall"):
                begun.set()

        reading = asyncio.ensure_future(read())
        await begun.wait()
        reading.cancel()
        await asyncio.wait([reading])
        await until(lambda: closed == ["stall"])


async def test_stream_has_its_own_connection(port: int) -> None:
    """On TCP a stream has a connection of its own, which ends with it."""
    async with serving(port, *HANDLERS) as server, calling(port) as client:
        await client.asend("echo")
        intake: Any = server._intake
        items = client.astream("stall")
        await anext(items)
        assert len(intake.connections) == 2
        await items.aclose()
        await until(lambda: len(intake.connections) == 1)


async def test_backpressure(port: int) -> None:
    """While nobody reads, the server stops producing."""
    produced = 0

    @message_pattern("flood")
    async def flood(data: Any) -> AsyncIterator[str]:
        nonlocal produced
        while True:
            produced += 1
            yield "x" * 10_000

    async with serving(port, flood), calling(port) as client:
        items = client.astream("flood")
        await anext(items)
        before = -1
        while before != produced:
            before = produced
            await asyncio.sleep(0.1)
        assert produced < 5000
        for _ in range(before):
            await anext(items)
        await until(lambda: produced > before)
        await items.aclose()


async def test_overflow() -> None:
    """On a wire without stream links a reader too slow loses the stream."""
    wire = FakeWire()
    async with calling(0, transport=wire) as client:
        items = client.astream("flood")
        first = asyncio.ensure_future(anext(items))
        await until(lambda: wire.links and wire.link.published)
        for _ in range(1025):
            wire.link.answer(b"1", last=False)
        await first
        with pytest.raises(StreamOverflow):
            async for _ in items:
                pass
