"""What a server makes of peers that ask for streams and never read them: row 39."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from django_microservices import message_pattern
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.server import Server
from django_microservices.transports.tcp import TCPTransport
from django_microservices.transports.tcp.protocol import frame
from tests.endpoints.ends import calling, running, server_of, until

from .calls import echo

Ports = Callable[[], int]
PLACES, THREADS = 4, 2
UNREAD = 0.5
"""Seconds that a peer has to read something."""

ITEM = "x" * 60_000
ended: list[int] = []


@message_pattern("on a thread")
def on_a_thread(data: int) -> Iterator[str]:
    """Go on for ever, and note the end, on whose thread it is."""
    try:
        while True:
            yield ITEM
    finally:
        ended.append(threading.get_ident())


@message_pattern("on the loop")
async def on_the_loop(data: int) -> AsyncIterator[str]:
    """Go on for ever, and note the end."""
    try:
        while True:
            yield ITEM
    finally:
        ended.append(threading.get_ident())


@message_pattern("count")
def count(data: int) -> Iterator[int]:
    """Count, on a thread."""
    yield from range(data)


def ask(port: int, pattern: str, number: int) -> socket.socket:
    """Ask for a stream, on a connection from which nothing is ever read."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    packet = {"pattern": pattern, "data": 1, "id": str(number)}
    peer.sendall(frame(json.dumps(packet).encode()))
    return peer


@asynccontextmanager
async def attacked(
    port: int, pattern: str, peers: int
) -> AsyncIterator[tuple[Server, Client]]:
    """Give a server, of which so many peers ask for streams, and an honest client."""
    ended.clear()
    transport = TCPTransport(port=port, unread_timeout=UNREAD)
    handlers = (on_a_thread, on_the_loop, count, echo)
    server = server_of(transport, *handlers, concurrency=PLACES)
    with ExitStack() as stack:
        async with running(server, threads=THREADS), calling(port) as client:
            for number in range(peers):
                stack.enter_context(ask(port, pattern, number))
            await until(lambda: len(server.in_flight) == peers)
            yield server, client


@pytest.mark.parametrize("pattern", ["on a thread", "on the loop"])
async def test_unread_streams(free_port: Ports, pattern: str) -> None:
    """39: More of them than places and threads keep nobody out, and are cut."""
    port, peers = free_port(), 3 * PLACES
    async with attacked(port, pattern, peers) as (server, client):
        for number in range(50):
            assert await client.asend("echo", number) == number
        assert len(server.in_flight) > THREADS
        await until(lambda: not server.in_flight)
        items = [item async for item in client.astream("count", 3)]
        assert items == [0, 1, 2]
    # Who was cut while it waited for a thread had not begun.
    assert 0 < len(ended) <= peers


async def test_unread_streams_leave_no_thread_behind(free_port: Ports) -> None:
    """39: A thread whose reader is cut goes on with the next stream at once."""
    async with attacked(free_port(), "on a thread", THREADS) as (server, client):
        streams: Any = server.streams
        await until(lambda: streams.busy == THREADS)
        items = asyncio.ensure_future(anext(client.astream("count", 3)))
        await until(lambda: not streams.busy)
        assert await items == 0
    assert len(ended) == THREADS


@pytest.mark.parametrize("pattern", ["on a thread", "on the loop"])
async def test_one_peer_with_many_streams(free_port: Ports, pattern: str) -> None:
    """39: Nor does one peer that asks for all of them."""
    port = free_port()
    async with attacked(port, pattern, 0) as (server, client):
        with ask(port, pattern, 0) as peer:
            for number in range(1, 100):
                packet = {"pattern": pattern, "data": 1, "id": str(number)}
                peer.sendall(frame(json.dumps(packet).encode()))
            await until(lambda: server.in_flight)
            for number in range(50):
                assert await client.asend("echo", number) == number
                assert len(server.in_flight) <= 2 * PLACES
            await until(lambda: not server.in_flight)
