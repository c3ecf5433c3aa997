"""The end that asks: its verbs, for every kind of caller."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation

from django_microservices import (
    UNSET,
    EncodingError,
    Event,
    MessageTooLarge,
    NoHandler,
    NotConnected,
    RemoteError,
    message_pattern,
)
from django_microservices.concurrency.portal import portal
from django_microservices.endpoints.client import Client
from django_microservices.transports.tcp import TCPTransport
from django_microservices.wire.context import outer_request_id
from django_microservices.wire.status import Status
from tests.endpoints.answers import HANDLERS, noted
from tests.endpoints.ends import calling, calling_sync, client_of, serving, until

Ports = Callable[[], int]


# --- async verbs ------------------------------------------------------------------


async def test_asend(port: int) -> None:
    """A request brings its answer."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend({"cmd": "sum"}, [1, 2, 3]) == 6
        assert await client.asend({"cmd": "sum"}, [4]) == 4


async def test_values(port: int) -> None:
    """Null, false, 0 and '' are answers; no value is UNSET."""
    values: list[Any] = [None, False, 0, "", [], {}]
    async with serving(port, *HANDLERS), calling(port) as client:
        for value in values:
            assert await client.asend("echo", value) == value
        assert await client.asend("nothing") is UNSET


async def test_aemit(port: int) -> None:
    """An event arrives, and nothing comes back."""
    async with serving(port, *HANDLERS), calling(port) as client:
        await client.aemit("noted", 1)
        await client.aemit("noted", 2)
        await until(lambda: len(noted) == 2)
    assert noted == [1, 2]


@pytest.mark.parametrize("pattern", ["count", "acount"])
async def test_astream(port: int, pattern: str) -> None:
    """The items of a stream come one by one."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert [n async for n in client.astream(pattern, 300)] == [*range(300)]


async def test_asend_of_a_stream(port: int) -> None:
    """Of a stream, ``asend`` returns the last item."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend("acount", 3) == 2


async def test_unencodable(port: int) -> None:
    """What cannot travel is refused before anything is sent."""
    async with calling(port) as client:
        with pytest.raises(EncodingError, match="cannot travel"):
            await client.asend("echo", object())
        assert client.status == Status.DISCONNECTED


async def test_many_in_flight(port: int) -> None:
    """Answers find their own calls among many."""
    async with serving(port, *HANDLERS), calling(port) as client:
        calls = (client.asend("echo", n) for n in range(500))
        assert await asyncio.gather(*calls) == [*range(500)]


# --- sync verbs -------------------------------------------------------------------


def test_send(client: Client) -> None:
    """A request brings its answer."""
    assert client.send({"cmd": "sum"}, [1, 2, 3]) == 6


def test_emit(client: Client) -> None:
    """An event arrives."""
    client.emit("noted", 1)
    async_to_sync(until)(lambda: noted)
    assert noted == [1]


@pytest.mark.parametrize("pattern", ["count", "acount"])
def test_stream(client: Client, pattern: str) -> None:
    """The items of a stream come one by one."""
    assert list(client.stream(pattern, 300)) == [*range(300)]


def test_threads(client: Client) -> None:
    """Callers on many threads share one connection."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: client.send("echo", n), range(400)))
    assert answers == [*range(400)]
    assert len(client._connections) == 1


def test_async_verbs_in_async_to_sync(client: Client) -> None:
    """A loop that lives for one call uses the connection of sync callers."""

    async def use() -> list[Any]:
        items = [n async for n in client.astream("acount", 3)]
        await client.aemit("noted", 1)
        assert client.status == Status.CONNECTED
        return [await client.asend("echo", 7), items]

    assert async_to_sync(use)() == [7, [0, 1, 2]]
    assert async_to_sync(use)() == [7, [0, 1, 2]]
    assert [portal.is_loop(loop) for loop in client._connections._by_loop] == [True]


def test_aclose_in_async_to_sync(client: Client) -> None:
    """There ``aclose`` closes the connection of sync callers."""
    client.send("echo")
    async_to_sync(client.aclose)()
    assert client.status == Status.CLOSED
    async_to_sync(client.aclose)()


@pytest.mark.parametrize(
    ("verb", "twin"),
    [
        ("send", "asend"),
        ("emit", "aemit"),
        ("stream", "astream"),
        ("connect", "aconnect"),
        ("close", "aclose"),
    ],
)
async def test_refused_inside_a_loop(port: int, verb: str, twin: str) -> None:
    """A sync verb inside a running loop names the one to await."""
    arguments = [] if verb in {"connect", "close"} else ["echo"]
    with pytest.raises(SynchronousOnlyOperation, match=rf"{verb}\(\).*{twin}\(\)"):
        getattr(client_of(TCPTransport(port=port)), verb)(*arguments)


# --- errors -----------------------------------------------------------------------


async def test_remote_error(port: int) -> None:
    """A handler's error arrives with its value."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(RemoteError) as caught:
            await client.asend("refuse", {"code": 7})
    assert caught.value.error == {"code": 7}


def test_remote_error_of_a_sync_call(client: Client) -> None:
    """A sync caller gets the same, from requests and from streams."""
    with pytest.raises(RemoteError, match="no"):
        client.send("refuse", "no")
    with pytest.raises(RemoteError, match="no"):
        list(client.stream("refuse", "no"))


async def test_unknown_pattern(port: int) -> None:
    """A pattern that nobody handles is NoHandler, with its name."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(NoHandler, match=r'tested: {"cmd":"wrong"}: There is no'):
            await client.asend({"cmd": "wrong"})


async def test_nobody_there(port: int) -> None:
    """Where nobody listens every verb says so."""
    async with calling(port) as client:
        with pytest.raises(NotConnected, match=f"tested: 127.0.0.1:{port}: "):
            await client.asend("echo")
        with pytest.raises(NotConnected):
            await client.aemit("noted")
        with pytest.raises(NotConnected):
            await anext(client.astream("count", 1))


def test_nobody_there_for_sync_callers(port: int) -> None:
    """Sync verbs say so too."""
    with calling_sync(port) as client:
        with pytest.raises(NotConnected):
            client.send("echo")
        with pytest.raises(NotConnected):
            client.emit("noted")
        with pytest.raises(NotConnected):
            list(client.stream("count", 1))


async def test_too_large(port: int) -> None:
    """What the server would refuse is not sent; the connection stays."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(MessageTooLarge, match="max_frame_size"):
            await client.asend("echo", "x" * 1024 * 1024)
        with pytest.raises(MessageTooLarge):
            await client.aemit("noted", "x" * 1024 * 1024)
        assert await client.asend("echo", 1) == 1


@pytest.mark.parametrize("size", [200_000, 2_000_000])
async def test_answer_too_large(port: int, size: int) -> None:
    """An answer over our limit, or over the server's, fails its own call only."""

    @message_pattern("large")
    async def large(data: int) -> str:
        return "x" * data

    @message_pattern("items")
    async def items(data: int) -> AsyncIterator[str]:
        yield "first"
        yield "x" * data

    small = TCPTransport(port=port, max_frame_size=100_000)
    async with (
        serving(port, large, items, *HANDLERS),
        calling(port, transport=small) as client,
    ):
        beside = [asyncio.ensure_future(client.asend("echo", n)) for n in range(10)]
        with pytest.raises(MessageTooLarge, match="answer is too large"):
            await client.asend("large", size)
        stream = client.astream("items", size)
        assert await anext(stream) == "first"
        with pytest.raises(MessageTooLarge):
            await anext(stream)
        assert await asyncio.gather(*beside) == [*range(10)]


@pytest.mark.parametrize("pattern", ["dm-ping", Event("dm-x", int)])
async def test_reserved_pattern(port: int, pattern: Any) -> None:
    """Patterns of the library's own are refused."""
    async with calling(port) as client:
        with pytest.raises(ValueError, match="'dm-' are reserved"):
            await client.asend(pattern)


async def test_long_reserved_pattern(port: int) -> None:
    """The error is short, however long the pattern is."""
    async with calling(port) as client:
        with pytest.raises(ValueError, match="reserved") as caught:
            await client.asend("dm-" + "x" * 100_000)
    assert len(str(caught.value)) < 400


# --- headers ----------------------------------------------------------------------


async def test_headers(port: int) -> None:
    """Headers travel, and the caller's mapping is left as it was."""
    given = {"tenant": "a"}
    async with serving(port, *HANDLERS), calling(port) as client:
        received = await client.asend("headers", headers=given)
    assert received["tenant"] == "a"
    assert given == {"tenant": "a"}


async def test_request_id_travels(port: int) -> None:
    """The id of the HTTP request goes with every call; one given counts more."""
    token = outer_request_id.set("from-http")
    try:
        async with serving(port, *HANDLERS), calling(port) as client:
            received = await client.asend("headers")
            own = await client.asend("headers", headers={"dm-request-id": "own"})
    finally:
        outer_request_id.reset(token)
    assert received["dm-request-id"] == "from-http"
    assert own["dm-request-id"] == "own"
