"""The end that asks: its verbs, for every kind of caller."""

import asyncio
import dataclasses
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connections, transaction
from django.test import TestCase, override_settings
from pytest_django import DjangoDbBlocker

from django_microservices import (
    UNSET,
    EncodingError,
    Event,
    InvalidReply,
    MessageTimeout,
    MessageTooLarge,
    NoHandler,
    NotConnected,
    RemoteError,
    Request,
    RpcException,
    clients,
    create_client,
    current_context,
    event_pattern,
    message_pattern,
)
from django_microservices.concurrency.portal import portal
from django_microservices.endpoints.client import DEFAULT, Client, ClientConfig
from django_microservices.exceptions import StreamOverflow
from django_microservices.transports.memory import MemoryTransport
from django_microservices.transports.tcp import TCPTransport
from django_microservices.wire.context import outer_request_id
from django_microservices.wire.status import Status
from tests.endpoints.ends import (
    PATIENCE,
    FakeWire,
    calling,
    calling_sync,
    client_of,
    running,
    server_of,
    serving,
    serving_elsewhere,
    until,
)

Ports = Callable[[], int]

noted: list[Any] = []
closed: list[str] = []
cancelled = threading.Event()


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    noted.clear()
    closed.clear()
    cancelled.clear()


@message_pattern({"cmd": "sum"})
def total(data: list[int]) -> int:
    """Add numbers up."""
    return sum(data)


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("nothing")
async def nothing(data: Any) -> Any:
    """Answer without a value."""
    return UNSET


@message_pattern("headers")
async def headers(data: Any) -> dict[str, str]:
    """Return the texts beside the payload."""
    context = current_context()
    assert context is not None
    return context.headers


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never, and note that nobody waits any more."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


@message_pattern("refuse")
def refuse(data: Any) -> None:
    """Answer with an error."""
    raise RpcException(data)


@message_pattern("count")
def count(data: int) -> Iterator[int]:
    """Stream numbers from a thread."""
    try:
        yield from range(data)
    finally:
        closed.append("count")


@message_pattern("acount")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers from the loop."""
    try:
        for number in range(data):
            yield number
    finally:
        closed.append("acount")


@message_pattern("stall")
async def stall(data: Any) -> AsyncIterator[int]:
    """Stream one item and no more."""
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        closed.append("stall")


@event_pattern("noted")
async def note(data: Any) -> None:
    """Take an event."""
    noted.append(data)


HANDLERS = (
    total, echo, nothing, headers, hang, refuse, count, acount, stall, note,
)  # fmt: skip


@pytest.fixture
def port(free_port: Ports) -> int:
    """Give a port."""
    return free_port()


@pytest.fixture
def served(port: int) -> Iterator[int]:
    """Serve on another thread's loop; give the port."""
    with serving_elsewhere(port, *HANDLERS):
        yield port


@pytest.fixture
def client(served: int) -> Iterator[Client]:
    """Give a client for sync callers."""
    with calling_sync(served) as client:
        yield client


@dataclasses.dataclass
class User:
    """What a reply may be asked to be."""

    name: str


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


# --- time -------------------------------------------------------------------------


async def test_timeout_of_a_call(port: int) -> None:
    """A call's own timeout ends it, and the handler is told."""
    async with serving(port, *HANDLERS), calling(port) as client:
        await client.asend("echo")
        with pytest.raises(MessageTimeout, match=r"hang from 'tested' within 0.05 s"):
            await client.asend("hang", timeout=0.05)
        await until(cancelled.is_set)


def test_timeout_of_a_sync_call(client: Client) -> None:
    """A sync call's timeout ends it, and the handler is told."""
    client.send("echo")
    with pytest.raises(MessageTimeout):
        client.send("hang", timeout=0.05)
    assert cancelled.wait(PATIENCE)


async def test_default_timeout(port: int) -> None:
    """Without one of its own, a call has the client's."""
    async with serving(port, *HANDLERS), calling(port, timeout=0.05) as client:
        with pytest.raises(MessageTimeout, match=r"within 0.05 s"):
            await client.asend("hang")


async def test_no_timeout(port: int) -> None:
    """With None a call waits for as long as it takes."""
    async with serving(port, *HANDLERS), calling(port, timeout=0.001) as client:
        waiting = asyncio.ensure_future(client.asend("hang", timeout=None))
        assert await client.asend("echo", 1, timeout=None) == 1
        assert not waiting.done()
        waiting.cancel()


async def test_timeout_travels(port: int) -> None:
    """The server learns how long the caller waits."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert (await client.asend("headers", timeout=2))["dm-timeout"] == "2000"
        assert "dm-timeout" not in await client.asend("headers", timeout=None)


async def test_timeout_of_an_item(port: int) -> None:
    """A stream's timeout bounds the wait for each item."""
    async with serving(port, *HANDLERS), calling(port) as client:
        items = client.astream("stall", timeout=0.1)
        assert await anext(items) == 1
        with pytest.raises(MessageTimeout):
            await anext(items)
        await until(lambda: closed)


def test_default_shows_itself() -> None:
    """The default timeout has a name in signatures."""
    assert repr(DEFAULT) == "the client's TIMEOUT"


# --- cancelling and closing -------------------------------------------------------


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


@pytest.mark.parametrize("pattern", ["dm-ping", Event("dm-x", int)])
async def test_reserved_pattern(port: int, pattern: Any) -> None:
    """Patterns of the library's own are refused."""
    async with calling(port) as client:
        with pytest.raises(ValueError, match="'dm-' are reserved"):
            await client.asend(pattern)


# --- types and contracts ----------------------------------------------------------

SUM = Request({"cmd": "sum"}, list[int], int)
ECHO = Request("echo", dict[str, str], User)
NOTED = Event("noted", int)


async def test_returns(port: int) -> None:
    """``returns`` makes the answer the type asked for."""
    async with serving(port, *HANDLERS), calling(port) as client:
        user = await client.asend("echo", {"name": "Ada"}, returns=User)
        assert user == User("Ada")


async def test_contract(port: int) -> None:
    """A contract names the pattern and the type of the answer."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend(SUM, [1, 2]) == 3
        assert await client.asend(ECHO, {"name": "Ada"}) == User("Ada")
        await client.aemit(NOTED, 4)
        await until(lambda: noted == [4])


async def test_contract_for_a_stream(port: int) -> None:
    """Each item of a stream is the type asked for."""
    numbers = Request("acount", int, int)
    async with serving(port, *HANDLERS), calling(port) as client:
        assert [n async for n in client.astream(numbers, 2)] == [0, 1]


@pytest.mark.parametrize("answer", ["text", None, {"nom": "Ada"}])
async def test_invalid_reply(port: int, answer: Any) -> None:
    """An answer that is not of the type asked for is an InvalidReply."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(InvalidReply):
            await client.asend("echo", answer, returns=User)


async def test_missing_value(port: int) -> None:
    """No value is null to a type that allows it, and an InvalidReply to others."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend("nothing", returns=int | None) is None
        with pytest.raises(InvalidReply):
            await client.asend("nothing", returns=int)


async def test_invalid_item(port: int) -> None:
    """An item of a wrong type ends the stream."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(InvalidReply):
            await anext(client.astream("acount", 10**9, returns=str))
        await until(lambda: closed == ["acount"])


async def test_type_beside_a_contract(port: int) -> None:
    """A type asked for at the call counts more than the contract's."""
    async with serving(port, *HANDLERS), calling(port) as client:
        answer = await client.asend(ECHO, {"name": "Ada"}, returns=dict[str, str])
    assert answer == {"name": "Ada"}


# --- middleware ------------------------------------------------------------------


def unchanged(get_response: Any) -> Any:
    """Be there, and do nothing."""

    def layer(call: Any) -> Any:
        return get_response(call)

    return layer


def unchanged_async(get_response: Any) -> Any:
    """Be there, and do nothing."""

    async def layer(call: Any) -> Any:
        return await get_response(call)

    return layer


async def test_async_verbs_with_middleware(port: int) -> None:
    """Client middleware is around every async verb."""
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(unchanged_async,)) as client,
    ):
        assert await client.asend("echo", 1) == 1
        assert [n async for n in client.astream("acount", 2)] == [0, 1]
        await client.aemit("noted", 1)
        await until(lambda: noted)


def test_sync_verbs_with_middleware(served: int) -> None:
    """And around every sync one."""
    with calling_sync(served, middleware=(unchanged,)) as client:
        assert client.send("echo", 1) == 1
        assert list(client.stream("acount", 2)) == [0, 1]
        client.emit("noted", 1)
        async_to_sync(until)(lambda: noted)


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


# --- after the transaction --------------------------------------------------------


@pytest.fixture
def database(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Allow the database, without a transaction around the test."""
    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest.mark.usefixtures("database")
def test_emit_after_the_commit(client: Client) -> None:
    """With on_commit an event is sent after the transaction, not before."""
    with transaction.atomic():
        client.emit("noted", 1, on_commit=True)
        client.send("echo")
        assert noted == []
    async_to_sync(until)(lambda: noted == [1])


@pytest.mark.usefixtures("database")
def test_emit_after_a_rollback(client: Client) -> None:
    """An event of a transaction that was rolled back is not sent."""
    with transaction.atomic():
        client.emit("noted", 1, on_commit=True)
        transaction.set_rollback(True)
    client.emit("noted", 2, on_commit=True)
    async_to_sync(until)(lambda: noted)
    assert noted == [2]


@pytest.mark.usefixtures("database")
def test_emit_on_commit_in_a_test_case(client: Client) -> None:
    """Inside a TestCase the event is a callback that the test can run."""
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            client.emit("noted", 1, on_commit=True)
            assert noted == []
        async_to_sync(until)(lambda: noted)
    assert len(callbacks) == 1


@pytest.mark.usefixtures("database")
def test_aemit_after_the_commit(client: Client) -> None:
    """The async verb does so too, on the thread that has the transaction."""
    emit: Any = async_to_sync(client.aemit)
    with transaction.atomic():
        emit("noted", 1, on_commit=True)
        assert noted == []
    async_to_sync(until)(lambda: noted == [1])


@pytest.mark.usefixtures("database")
def test_middleware_after_the_commit(served: int) -> None:
    """Client middleware sees such an event when it is sent."""
    seen: list[Any] = []

    def look(get_response: Any) -> Any:
        def layer(call: Any) -> Any:
            seen.append(call.data)
            return get_response(call)

        return layer

    with calling_sync(served, middleware=(look,)) as client:
        with transaction.atomic():
            client.emit("noted", 1, on_commit=True)
            assert seen == []
        assert seen == [1]


# --- the connection ---------------------------------------------------------------


async def test_aconnect(port: int) -> None:
    """It can be connected before the first call, and says what it is connected with."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert client.status == Status.DISCONNECTED
        with pytest.raises(NotConnected, match="'tested' is not connected"):
            client.unwrap()
        await client.aconnect()
        assert client.status == Status.CONNECTED
        peer = client.unwrap().get_extra_info("peername")
        assert peer == ("127.0.0.1", port)


def test_connect(client: Client) -> None:
    """So can the connection of sync callers."""
    client.connect()
    assert client.status == Status.CONNECTED
    assert client.unwrap() is not None


async def test_aconnect_without_a_server(port: int) -> None:
    """Where nobody listens connecting says so."""
    async with calling(port) as client:
        with pytest.raises(NotConnected):
            await client.aconnect()


async def test_status_is_a_stream(port: int) -> None:
    """The status may be followed from before the first call until after the close."""
    seen: list[str] = []

    async def follow(client: Client) -> None:
        async for status in client.status:
            seen.append(str(status))  # noqa: PERF401 - read while it grows

    async with serving(port, *HANDLERS), calling(port) as client:
        following = asyncio.ensure_future(follow(client))
        await asyncio.sleep(0)
        await client.aconnect()
        await until(lambda: seen[-1] == "connected")
        await client.aclose()
        await until(lambda: seen[-1] == "closed")
    following.cancel()
    assert seen == ["disconnected", "connecting", "connected", "closed"]


async def test_events(port: int) -> None:
    """Callbacks hear of connecting, of losing the link, and of errors."""
    heard: list[str] = []
    async with calling(port) as client:
        client.on("connect", lambda: heard.append("connect"))
        client.on("disconnect", lambda: heard.append("disconnect"))
        client.on("error", lambda error: heard.append(type(error).__name__))
        with pytest.raises(NotConnected):
            await client.aconnect()
        async with serving(port, *HANDLERS):
            await until(lambda: heard[-1] == "connect")
        await until(lambda: "disconnect" in heard)
    assert heard[0] == "NotConnected"


async def test_use_after_close(port: int) -> None:
    """After a close the next call connects again."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend("echo", 1) == 1
        await client.aclose()
        await client.aclose()
        assert await client.asend("echo", 2) == 2


def test_sync_use_after_close(client: Client) -> None:
    """So it is for sync callers."""
    assert client.send("echo", 1) == 1
    client.close()
    client.close()
    assert client.send("echo", 2) == 2


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
        asyncio.run(_use(client))
    assert len(client._connections) == 1
    assert len(client._connections._statuses) == 1


async def _use(client: Client) -> None:
    assert await client.asend("echo", 1) == 1


async def test_calls_of_a_closed_connection(port: int) -> None:
    """When a loop ends, a thread that waits on it gets an error."""
    async with serving(port, *HANDLERS), calling(port) as client:
        call = asyncio.ensure_future(client.asend("hang", timeout=None))
        await until(lambda: client.status == Status.CONNECTED)
        await client.aclose()
        with pytest.raises(ConnectionError, match="the client was closed"):
            await call


# --- settings ---------------------------------------------------------------------


def settings_for(port: int, **more: Any) -> dict[str, Any]:
    """Name one client in settings."""
    return {"CLIENTS": {"MATH": {"OPTIONS": {"port": port}, **more}}}


def test_override_settings(free_port: Ports) -> None:
    """Settings that change take effect at once, on an object kept at module level."""
    client = clients["MATH"]
    first, second = free_port(), free_port()

    @message_pattern("which")
    async def one(data: Any) -> str:
        return "first"

    @message_pattern("which")
    async def two(data: Any) -> str:
        return "second"

    with serving_elsewhere(first, one), serving_elsewhere(second, two):
        with override_settings(MICROSERVICES=settings_for(first)):
            assert client.send("which") == "first"
            with override_settings(MICROSERVICES=settings_for(second)):
                assert client.send("which") == "second"
            assert client.send("which") == "first"
        with pytest.raises(ImproperlyConfigured, match="MATH"):
            client.send("which")


async def test_override_settings_in_a_loop(port: int) -> None:
    """They may change inside a running loop; the connection there is closed soon."""
    client = clients["MATH"]
    async with serving(port, *HANDLERS) as server:
        with override_settings(MICROSERVICES=settings_for(port)):
            assert await client.asend("echo", 1) == 1
            status = client.status
            intake: Any = server._intake
            assert len(intake.connections) == 1
        await until(lambda: not intake.connections)
        assert status == Status.CLOSED


def test_settings_of_a_closed_loop(served: int) -> None:
    """A connection whose loop has ended is no obstacle to new settings."""
    client = clients["MATH"]
    with override_settings(MICROSERVICES=settings_for(served)):
        asyncio.run(_use(client))
    assert len(client._connections) == 0


def test_callable_entry(served: int) -> None:
    """An entry that is a callable is called once, before the first use."""
    calls: list[str] = []

    def entry() -> dict[str, Any]:
        calls.append("sync")
        return {"OPTIONS": {"port": served}}

    with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
        client = clients["MATH"]
        assert calls == []
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: client.send("echo"), range(16)))
    assert calls == ["sync"]


async def test_async_callable_entry(port: int) -> None:
    """So is an async one, however many tasks use it first."""
    calls: list[str] = []

    async def entry() -> dict[str, Any]:
        await asyncio.sleep(0)
        calls.append("async")
        return {"OPTIONS": {"port": port}}

    async with serving(port, *HANDLERS):
        with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
            client = clients["MATH"]
            await asyncio.gather(*(client.asend("echo") for _ in range(16)))
    assert calls == ["async"]


def test_async_callable_entry_for_sync_callers(served: int) -> None:
    """Sync callers have an async entry awaited for them."""

    async def entry() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"OPTIONS": {"port": served}}

    with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
        assert clients["MATH"].send("echo", 1) == 1


def test_timeout_of_settings(served: int) -> None:
    """TIMEOUT is the default of every call."""
    with (
        override_settings(MICROSERVICES=settings_for(served, TIMEOUT=0.05)),
        pytest.raises(MessageTimeout, match=r"'MATH' within 0.05 s"),
    ):
        clients["MATH"].send("hang")


def test_create_client(served: int) -> None:
    """A client can be made outside settings, in two forms."""
    first = create_client(port=served)
    second = create_client({"OPTIONS": {"port": served}, "TIMEOUT": 0.05})
    assert first.send("echo", 1) == 1
    with pytest.raises(MessageTimeout, match="'TCPTransport'"):
        second.send("hang")
    first.close()
    second.close()


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
