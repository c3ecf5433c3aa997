"""What becomes of a call, for each kind of caller."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync
from django.test import override_settings

from django_microservices import (
    UNSET,
    EncodingError,
    InvalidReply,
    MessageTimeout,
    NotConnected,
    RemoteError,
    RpcException,
    clients,
    message_pattern,
)
from django_microservices.endpoints.calls import Call, StreamCall
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.config import ClientConfig
from django_microservices.endpoints.connections import Connections
from django_microservices.endpoints.exchange import Exchange, payload_of, value_of
from django_microservices.endpoints.listeners import Listeners
from django_microservices.transports.memory import MemoryTransport
from django_microservices.wire.patterns import Pattern
from tests.endpoints.answers import cancelled
from tests.endpoints.ends import PATIENCE, FakeLink, FakeWire, running, server_of, until


@pytest.fixture
def wire() -> FakeWire:
    """Give a wire that a test answers by hand."""
    return FakeWire()


@pytest_asyncio.fixture
async def exchange(wire: FakeWire) -> AsyncIterator[Exchange]:
    """Give an exchange over that wire, closed on this loop and the portal's."""
    connections = Connections("tested", Listeners())
    yield Exchange(ClientConfig(wire), connections)
    connections.end()


def call_of(kind: type[Call] = Call, **more: Any) -> Call:
    """Make a call as a verb does."""
    more = {"data": [1], "id": "7", "timeout": PATIENCE, "client": "tested", **more}
    return kind(Pattern.of("echo"), stream=kind is StreamCall, **more)


async def published(wire: FakeWire, count: int = 1) -> FakeLink:
    """Wait until so many messages are on the wire; return the link."""
    await until(lambda: wire.links and len(wire.link.published) == count)
    return wire.link


# --- async callers ----------------------------------------------------------------


async def test_request(wire: FakeWire, exchange: Exchange) -> None:
    """A request is sent encoded, and its answer returned decoded."""
    for count in (1, 2):  # the first finds no connection, the second is the hot path
        waiting = asyncio.ensure_future(exchange.arun(call_of()))
        link = await published(wire, count)
        assert link.published[-1].data == b"[1]"
        link.answer(b'{"a":1}')
        assert await waiting == {"a": 1}
    assert link.forgotten == [("7", True)] * 2


async def test_cancelled_request(wire: FakeWire, exchange: Exchange) -> None:
    """When nobody waits any more the wire is told, on either path."""
    for count in (1, 2):
        waiting = asyncio.ensure_future(exchange.arun(call_of()))
        link = await published(wire, count)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert link.forgotten == [("7", False)] * 2


async def test_event(wire: FakeWire, exchange: Exchange) -> None:
    """An event is sent, and nothing comes back."""
    assert await exchange.arun(call_of(id=UNSET, data=UNSET)) is None
    (message,) = wire.link.published
    assert (message.id, message.data) == (UNSET, UNSET)


async def test_stream(wire: FakeWire, exchange: Exchange) -> None:
    """A stream gives its items as they come, and its end is told."""
    call = call_of(StreamCall, returns=int)
    items = await exchange.arun(call)
    first = asyncio.ensure_future(anext(items))
    link = await published(wire)
    link.answer(b"1", last=False)
    assert await first == 1
    await items.aclose()
    assert link.forgotten == [("7", False)]


async def test_unencodable(wire: FakeWire, exchange: Exchange) -> None:
    """What cannot travel is refused before there is a connection."""
    for kind, id_ in ((Call, "7"), (Call, UNSET), (StreamCall, "7")):
        with pytest.raises(EncodingError):
            await exchange.arun(call_of(kind, id=id_, data=object()))
    assert wire.attempts == []


def test_throwaway_loop(wire: FakeWire) -> None:
    """Async callers on a loop made for one call use the portal's."""
    exchange = Exchange(ClientConfig(wire), Connections("tested", Listeners()))
    emit: Any = async_to_sync(exchange.arun)
    for _ in range(2):
        emit(call_of(id=UNSET))
    assert len(wire.attempts) == 1
    assert exchange.connections.present(None) is not None
    exchange.connections.end()


# --- sync callers -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [Call, StreamCall])
def test_unencodable_for_sync_callers(wire: FakeWire, kind: type[Call]) -> None:
    """There, too, nothing is sent."""
    exchange = Exchange(ClientConfig(wire), Connections("tested", Listeners()))
    with pytest.raises(EncodingError):
        exchange.run(call_of(kind, data=object()))
    assert wire.attempts == []


def test_timeout_of_a_sync_caller(wire: FakeWire) -> None:
    """The caller keeps the time itself, and its call is given up."""
    exchange = Exchange(ClientConfig(wire), Connections("tested", Listeners()))
    with pytest.raises(MessageTimeout):
        exchange.run(call_of(timeout=0.05))
    async_to_sync(until)(lambda: wire.link.forgotten == [("7", False)])
    exchange.connections.end()


# --- payloads and values ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "payload"), [(None, b"null"), ({"a": 1}, b'{"a":1}'), (UNSET, UNSET)]
)
def test_payload(data: Any, payload: Any) -> None:
    """What is sent is encoded; no payload at all stays none."""
    assert payload_of(Call(Pattern.of("sum"), data)) == payload


def asking(returns: Any) -> Call:
    """Make a call that asks for a type."""
    return Call(Pattern.of("sum"), None, "7", client="MATH", returns=returns)


@pytest.mark.parametrize(
    ("data", "returns", "value"),
    [
        (b"[1]", None, [1]),
        (b"[1]", tuple[int], (1,)),
        (UNSET, None, UNSET),
        (UNSET, int | None, None),
        (UNSET, Any, None),
    ],
)
def test_value(data: Any, returns: Any, value: Any) -> None:
    """An answer is decoded to what was asked for."""
    assert value_of(asking(returns), data) == value


@pytest.mark.parametrize(
    ("data", "returns"), [(b"[", None), (b'"a"', int), (UNSET, int)]
)
def test_value_that_does_not_fit(data: Any, returns: Any) -> None:
    """One that is no JSON, or not of the type, is an error that says whose it is."""
    with pytest.raises(InvalidReply, match=r"^MATH: sum: "):
        value_of(asking(returns), data)


def test_payload_that_cannot_travel() -> None:
    """The error says for whom it was."""
    with pytest.raises(EncodingError, match=r"^MATH: sum: "):
        payload_of(Call(Pattern.of("sum"), object(), client="MATH"))


# --- in one process ---------------------------------------------------------------


MEMORY = {"TRANSPORT": "django_microservices.transports.MemoryTransport"}
IN_PROCESS = {"SERVERS": {"default": MEMORY}, "CLIENTS": {"HERE": MEMORY}}


@override_settings(MICROSERVICES=IN_PROCESS)
def test_memory_for_sync_callers() -> None:
    """Over the memory transport each sync verb serves the other side for its call."""
    client = clients["HERE"]
    assert client.send({"cmd": "sum"}, [1, 2]) == 3
    assert list(client.stream("count", 3)) == [0, 1, 2]
    assert client.emit("noted", 1) is None
    client.connect()
    client.close()


@message_pattern("broken")
def broken(data: Any) -> Iterator[int]:
    """Stream one item, then fail."""
    yield 1
    raise RpcException("no")


def test_memory_stream_that_fails() -> None:
    """There, too, the items before an error are read before it is raised."""
    transport = MemoryTransport()
    config = ClientConfig(
        transport, serve=lambda: running(server_of(transport, broken))
    )
    items = Client("HERE", lambda: config).stream("broken")
    assert next(items) == 1
    with pytest.raises(RemoteError, match="no"):
        next(items)


@override_settings(MICROSERVICES=IN_PROCESS)
async def test_memory_for_tasks() -> None:
    """So do the async verbs."""
    client = clients["HERE"]
    assert await client.asend({"cmd": "sum"}, [1, 2]) == 3
    assert [n async for n in client.astream("acount", 3)] == [0, 1, 2]
    await client.aemit("noted", 1)
    await client.aconnect()


async def test_memory_without_a_server() -> None:
    """Without anything to serve there is nobody there."""
    client = Client("HERE", lambda: ClientConfig(MemoryTransport()))
    with pytest.raises(NotConnected, match="no server with the memory transport"):
        await client.asend("echo")


# --- interrupts ---------------------------------------------------------------------


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """Send this process SIGINT in a while."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_keyboard_interrupt(client: Client) -> None:
    """Ctrl-C ends a sync wait, and the handler is told."""
    client.send("echo")
    with pytest.raises(KeyboardInterrupt), interrupted(0.1):
        client.send("hang", timeout=None)
    assert cancelled.wait(PATIENCE)
    assert client.send("echo", 1) == 1
