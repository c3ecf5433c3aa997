"""The connections of a client: which of them serves whom."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_microservices.concurrency.portal import portal
from django_microservices.endpoints.connections import Connections
from django_microservices.endpoints.listeners import Listeners
from django_microservices.transports.tcp import TCPTransport
from django_microservices.wire.status import Status, StatusStream
from tests.endpoints.answers import HANDLERS, use
from tests.endpoints.ends import FakeWire, calling, client_of, serving, until


@pytest.fixture
def wire() -> FakeWire:
    """Give a wire without a network."""
    return FakeWire()


@pytest.fixture
def connections() -> Connections:
    """Give the connections of a client that has none yet."""
    return Connections("tested", Listeners())


# --- one by one -------------------------------------------------------------------


async def test_one_for_a_loop(wire: FakeWire, connections: Connections) -> None:
    """A loop gets its connection at the first call, and the same one afterwards."""
    loop = asyncio.get_running_loop()
    assert connections.present(loop) is None
    first = connections.on(wire, loop)
    assert connections.on(wire, loop) is connections.present(loop) is first
    assert connections.latest is first
    assert len(connections) == 1


async def test_one_for_all_who_have_no_loop(
    wire: FakeWire, connections: Connections
) -> None:
    """Sync callers see the one on the portal's loop."""
    connections.on(wire, asyncio.get_running_loop())
    assert connections.present(None) is None
    shared = connections.on(wire, portal.loop)
    assert connections.present(None) is shared


async def test_closed_loops_are_forgotten(
    wire: FakeWire, connections: Connections
) -> None:
    """A new connection makes room of those whose loop has ended."""
    ended = asyncio.new_event_loop()
    connections.on(wire, ended)
    ended.close()
    assert len(connections) == 1
    connections.on(wire, asyncio.get_running_loop())
    assert len(connections) == 1


async def test_status_of_a_loop(wire: FakeWire, connections: Connections) -> None:
    """Who asks before there is a connection follows the one that comes."""
    loop = asyncio.get_running_loop()
    status = connections.status(loop)
    connections.on(wire, loop).status.change(Status.CONNECTED)
    assert connections.status(loop) is status
    assert status == Status.CONNECTED


def test_status_for_a_throwaway_loop(connections: Connections) -> None:
    """On a loop made for one call it is a copy: its waiters end with that loop."""
    connections.status(None).change(Status.CONNECTED)

    async def look() -> StatusStream:
        return connections.status(asyncio.get_running_loop())

    status: StatusStream = async_to_sync(look)()
    assert status == Status.CONNECTED
    assert status is not connections.status(None)


async def test_close(wire: FakeWire, connections: Connections) -> None:
    """The connection of a loop is closed there, and the next one is another."""
    loop = asyncio.get_running_loop()
    first = connections.on(wire, loop)
    await connections.close(loop)
    await connections.close(loop)
    assert first.status == Status.CLOSED
    assert connections.latest is None
    assert connections.on(wire, loop) is not first


async def test_drop(wire: FakeWire, connections: Connections) -> None:
    """After a fork they are another process's: forgotten, and not closed."""
    loop = asyncio.get_running_loop()
    first = connections.on(wire, loop)
    connections.drop()
    assert first.status == Status.DISCONNECTED
    assert connections.present(loop) is None
    assert connections.latest is None


async def test_end(wire: FakeWire, connections: Connections) -> None:
    """All are closed soon, each on its own loop; a closed loop is no obstacle."""
    ended = asyncio.new_event_loop()
    connections.on(wire, ended)
    here = connections.on(wire, asyncio.get_running_loop())
    there = connections.on(wire, portal.loop)
    ended.close()
    connections.end()
    assert len(connections) == 0
    await until(lambda: here.status == there.status.value == Status.CLOSED)


# --- of a client ------------------------------------------------------------------


async def test_each_loop_has_its_own(port: int) -> None:
    """Tasks of this loop and sync callers have a connection each."""
    async with serving(port, *HANDLERS) as server, calling(port) as client:
        await client.asend("echo")
        send: Any = sync_to_async(client.send, thread_sensitive=False)
        assert await send("echo", 1) == 1
        intake: Any = server._intake
        assert len(intake.connections) == 2
        assert await client.asend("echo", 2) == 2
        await sync_to_async(client.close, thread_sensitive=False)()


def test_loops_that_ended_are_forgotten(served: int) -> None:
    """A loop that was closed leaves nothing behind in the client."""
    client = client_of(TCPTransport(port=served))
    for _ in range(3):
        asyncio.run(use(client))
    assert len(client._connections) == 1
    assert len(client._connections._statuses) == 1


async def test_calls_of_a_closed_connection(port: int) -> None:
    """When a loop ends, a thread that waits on it gets an error."""
    async with serving(port, *HANDLERS), calling(port) as client:
        call = asyncio.ensure_future(client.asend("hang", timeout=None))
        await until(lambda: client.status == Status.CONNECTED)
        await client.aclose()
        with pytest.raises(ConnectionError, match="the client was closed"):
            await call
