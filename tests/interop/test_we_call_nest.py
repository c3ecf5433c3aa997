"""Our client, sync and async, calls a real Nest service over TCP."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TypedDict

import pytest

from django_microservices import (
    UNSET,
    Client,
    ConnectionLost,
    MessageTimeout,
    NoHandler,
    NotConnected,
    RemoteError,
    Request,
    Status,
    create_client,
)

from .harness import NestServer
from .ours import LARGE
from .tap import tap_on

TCP = "django_microservices.transports.TCPTransport"
INTERNAL = {"status": "error", "message": "Internal server error"}
FIVE_MB = 5 * 1024 * 1024
SUM = Request({"cmd": "sum"}, list[int], int)


class Caller:
    """A client by its async verbs."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, *args: Any, **more: Any) -> Any:
        """Send a request."""
        return await self.client.asend(*args, **more)

    async def emit(self, *args: Any) -> None:
        """Emit an event."""
        await self.client.aemit(*args)

    async def take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        """Take the first items of a stream, and leave it."""
        items = self.client.astream(*args, **more)
        taken = [item async for item, _ in _zip(items, range(count))]
        await items.aclose()
        return taken

    async def close(self) -> None:
        """Close the connection."""
        await self.client.aclose()


class SyncCaller(Caller):
    """A client by its sync verbs, each on a thread of its own."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.threads = ThreadPoolExecutor(200)

    async def send(self, *args: Any, **more: Any) -> Any:
        """Send a request."""
        return await self._run(lambda: self.client.send(*args, **more))

    async def emit(self, *args: Any) -> None:
        """Emit an event."""
        await self._run(lambda: self.client.emit(*args))

    async def take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        """Take the first items of a stream, and leave it."""
        taken: list[Any] = await self._run(lambda: self._take(count, *args, **more))
        return taken

    def _take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        items: Any = self.client.stream(*args, **more)
        taken = [item for _, item in zip(range(count), items, strict=False)]
        items.close()
        return taken

    async def close(self) -> None:
        """Close the connection, and let the threads end."""
        await self._run(self.client.close)
        self.threads.shutdown()

    async def _run(self, verb: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, verb)


async def _zip(items: AsyncIterator[Any], numbers: range) -> AsyncIterator[Any]:
    for number in numbers:
        try:
            yield await anext(items), number
        except StopAsyncIteration:
            return


Connect = Callable[..., Caller]


@pytest.fixture(params=[Caller, SyncCaller], ids=["async", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Return a function that makes a client of a port on loopback."""
    async with AsyncExitStack() as stack:

        def make(port: int, **options: Any) -> Caller:
            caller: Caller = request.param(create_client(TCP, port=port, **options))
            stack.push_async_callback(caller.close)
            return caller

        yield make


@pytest.fixture
def nest(connect: Connect, nest_server: NestServer) -> Caller:
    """Give a client of a Nest service with Nest's defaults."""
    return connect(nest_server.port)


# --- requests ---------------------------------------------------------------------


async def test_request_is_answered(nest: Caller) -> None:
    """A request brings back its one value."""
    assert await nest.send({"cmd": "sum"}, [1, 2, 3]) == 6


async def test_contract_is_answered(nest: Caller) -> None:
    """A contract's answer has its type."""
    assert await nest.send(SUM, [1, 2]) == 3


@pytest.mark.parametrize(
    "pattern",
    [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}],
    ids=["sorted", "unsorted"],
)
async def test_key_order_of_an_object_pattern_is_free(
    nest: Caller, pattern: Any
) -> None:
    """Nest finds an object pattern whatever the order of its keys."""
    assert await nest.send(pattern, 1) == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7", 7.0])
async def test_number_is_a_pattern(nest: Caller, pattern: Any) -> None:
    """A number is sent so that Nest finds it."""
    assert await nest.send(pattern, 1) == "seven"


@pytest.mark.parametrize("text", ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"])
async def test_text_beyond_ascii_arrives_whole(nest: Caller, text: str) -> None:
    """Frames are counted as Nest counts them, in pattern, payload and answer."""
    assert await nest.send("größe.👍", {text: [text]}) == {text: [text]}


@pytest.mark.parametrize(
    "value",
    [None, False, 0, "", [], {}, [None, False, 0, ""], {"a": None, "b": {"c": [[]]}}],
)
async def test_payload_comes_back_as_it_was(nest: Caller, value: Any) -> None:
    """What is false or empty in either language is a payload as any other."""
    answer = await nest.send("echo", value)
    assert (type(answer), answer) == (type(value), value)


async def test_undefined_payload_comes_back_so(nest: Caller) -> None:
    """UNSET is JavaScript's undefined, as payload and as answer."""
    assert await nest.send("echo", UNSET) is UNSET


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("null", None),
        ("false", False),
        ("true", True),
        ("zero", 0),
        ("empty", ""),
        ("undefined", UNSET),
        ("list", []),
        ("object", {}),
        ("emoji", "naïve 👍🏽 日本語"),
        ("date", "1970-01-01T00:00:00.000Z"),
        ("nan", None),
        ("holes", [None, 1]),
        ("partial", {"kept": 1}),
    ],
)
async def test_result_is_plain_python(nest: Caller, name: str, value: Any) -> None:
    """An undefined result is UNSET, which is not None."""
    answer = await nest.send("constant", name)
    assert (type(answer), answer) == (type(value), value)


async def test_date_is_read_as_one(nest: Caller) -> None:
    """A JavaScript Date is a datetime for who asks for it."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert await nest.send("constant", "date", returns=datetime.datetime) == epoch


async def test_date_is_written_as_javascript_reads_it(nest: Caller) -> None:
    """Milliseconds are kept, and the zone is Z."""
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 5678, tzinfo=datetime.UTC)
    assert await nest.send("echo", moment) == "2024-02-29T12:00:00.005Z"


class Kept(TypedDict):
    """What the constant "partial" looks like."""

    kept: int


async def test_answer_has_the_type_asked_for(nest: Caller) -> None:
    """An absent value is None where the type allows it."""
    assert await nest.send("constant", "partial", returns=Kept) == {"kept": 1}
    assert await nest.send("constant", "undefined", returns=int | None) is None


async def test_5_mb_go_both_ways(connect: Connect, nest_server: NestServer) -> None:
    """With the limit raised a large message is as any other."""
    caller = connect(nest_server.port, max_frame_size=LARGE)
    text = "👍" * (FIVE_MB // 4)
    assert await caller.send("echo", text) == text


async def test_200_requests_are_in_flight_at_once(nest: Caller) -> None:
    """Each is answered only once all 200 are there."""
    answers = await asyncio.gather(*(nest.send("meet", 200) for _ in range(200)))
    assert {*answers} == {*range(1, 201)}


async def test_metadata_is_seen_by_nest(nest: Caller) -> None:
    """Headers, and the time that is left, are what Nest's getMetadata returns."""
    seen = await nest.send("metadata", 1, timeout=3, headers={"tenant": "größe"})
    assert seen == {"tenant": "größe", "dm-peer": "1", "dm-timeout": "3000"}


async def test_slow_answer_is_not_awaited_for_ever(nest: Caller) -> None:
    """After a timeout the connection goes on, and the late answer is dropped."""
    with pytest.raises(MessageTimeout):
        await nest.send("slow", 200, timeout=0.05)
    assert await nest.send("slow", 250) == 250


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("text", {"status": "error", "message": "broken"}),
        ("emptyText", {"status": "error", "message": ""}),
        ("object", {"code": 42, "reason": "broken"}),
        ("list", ["broken", 42]),
        ("wrapped", {}),
        ("plain", INTERNAL),
        ("http", INTERNAL),
        ("thrownText", INTERNAL),
    ],
)
async def test_error_is_the_peers_value(nest: Caller, name: str, error: Any) -> None:
    """A RemoteError carries exactly what Nest's filter sent."""
    with pytest.raises(RemoteError) as raised:
        await nest.send("fail", name)
    assert raised.value.error == error


async def test_guard_refuses(nest: Caller) -> None:
    """What Nest's guards refuse has their sentence."""
    with pytest.raises(RemoteError, match=r"^Forbidden resource$"):
        await nest.send("guarded", 1)


async def test_nobody_answers_an_unknown_pattern(nest: Caller) -> None:
    """Nest's own text for it is an error of its own here."""
    with pytest.raises(NoHandler, match="cmd"):
        await nest.send({"cmd": "none"}, 1)


# --- streams ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("of", [0, 1, 2]),
        ("interval", [0, 1, 2]),
        ("empty", []),
        ("delayedEnd", [0, 1, 2]),
        ("promise", [0, 1, 2]),
        ("nulls", [None, None, None]),
        ("objects", [{"number": number, "text": "👍"} for number in range(3)]),
    ],
)
async def test_stream_arrives_in_order(
    nest: Caller, kind: str, items: list[Any]
) -> None:
    """Every item arrives, whether or not the end comes with the last of them."""
    assert await nest.take(10, "stream", {"kind": kind, "n": 3, "ms": 5}) == items


async def test_long_stream_arrives_whole(nest: Caller) -> None:
    """More items than are kept for a reader hold Nest back and lose nothing."""
    items = await nest.take(9999, "stream", {"kind": "of", "n": 5000})
    assert items == [*range(5000)]


async def test_last_item_is_the_answer_to_a_request(nest: Caller) -> None:
    """Who asks a stream for one value gets its last."""
    assert await nest.send("stream", {"kind": "delayedEnd", "n": 3, "ms": 5}) == 2


async def test_items_before_an_error_stay(nest: Caller) -> None:
    """A stream that fails has delivered what came before."""
    data = {"kind": "failing", "n": 2}
    assert await nest.take(2, "stream", data) == [0, 1]
    with pytest.raises(RemoteError) as raised:
        await nest.take(3, "stream", data)
    assert raised.value.error == {"code": 42, "reason": "broken"}


async def test_leaving_a_stream_ends_its_connection(
    connect: Connect, nest_server: NestServer
) -> None:
    """Nest has no word for it, so that the connection itself says so."""
    async with tap_on(nest_server.port) as tap:
        caller = connect(tap.port)
        data = {"kind": "interval", "n": 400, "ms": 5}
        assert await caller.take(3, "stream", data) == [0, 1, 2]
        async with asyncio.timeout(1):
            await tap.left.wait()


async def test_other_calls_go_on_when_a_stream_is_left(nest: Caller) -> None:
    """A stream's connection is its own."""
    slow = asyncio.ensure_future(nest.send("slow", 100))
    await nest.take(1, "stream", {"kind": "interval", "n": 100, "ms": 5})
    assert await slow == 100


# --- events -----------------------------------------------------------------------


async def test_every_handler_of_an_event_runs(nest: Caller) -> None:
    """An event arrives, with its payload."""
    await nest.send("events.forget", 1)
    await nest.emit("created", {"id": "👍"})
    events = await nest.send("events", 2)
    assert sorted(event["handler"] for event in events) == ["first", "second"]
    assert [event["data"] for event in events] == [{"id": "👍"}] * 2


async def test_event_of_an_object_pattern_arrives(nest: Caller) -> None:
    """Nest finds it by the route, which is what an event carries."""
    await nest.send("events.forget", 1)
    await nest.emit({"kind": "paid", "topic": "orders"}, 0)
    assert await nest.send("events", 1) == [{"handler": "object", "data": 0}]


async def test_unknown_event_disturbs_nothing(nest: Caller) -> None:
    """Nest logs it, and the connection goes on."""
    await nest.emit("unknown", 1)
    assert await nest.send("echo", 1) == 1


# --- the connection ---------------------------------------------------------------


async def test_killed_server_fails_every_call_at_once(
    connect: Connect, start_nest_server: Callable[..., NestServer]
) -> None:
    """Calls in flight end with ConnectionLost when the process is gone."""
    server = start_nest_server()
    caller = connect(server.port)
    calls = [asyncio.ensure_future(caller.send("slow", 30_000)) for _ in range(5)]
    calls.append(asyncio.ensure_future(_all(caller)))
    await caller.send("echo", 1)  # it was read after them
    server.process.process.kill()
    async with asyncio.timeout(2):
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionLost] * 6


async def _all(caller: Caller) -> list[Any]:
    data = {"kind": "interval", "n": 10, "ms": 30_000}
    return await caller.take(10, "stream", data, timeout=30)


async def test_client_finds_a_server_that_comes_back(
    connect: Connect, start_nest_server: Callable[..., NestServer]
) -> None:
    """While it is away calls fail at once, and then they are answered again."""
    server = start_nest_server()
    caller = connect(server.port)
    assert await caller.send("echo", 1) == 1
    server.close()
    with pytest.raises((ConnectionLost, NotConnected)):
        await caller.send("echo", 2)
    start_nest_server(port=server.port)
    assert await caller.send("echo", 3) == 3


async def test_status_says_that_nest_is_there(nest: Caller) -> None:
    """A client of Nest's is connected from its first call on."""
    await nest.send("echo", 1)
    status = nest.client.status
    if isinstance(nest, SyncCaller):
        status = await nest._run(lambda: nest.client.status)
    assert status == Status.CONNECTED


# --- TLS --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def secure_server(
    start_nest_server: Callable[..., NestServer], certificates: dict[str, str]
) -> NestServer:
    """Start a Nest service that wants to know who calls."""
    tls = {
        "key": certificates["server_key"],
        "cert": certificates["server_cert"],
        "ca": certificates["ca"],
        "requestCert": True,
    }
    return start_nest_server(tlsOptions=tls)


@pytest.fixture
def trust(certificates: dict[str, str]) -> dict[str, str]:
    """Give the options of a client that shows its certificate."""
    return {
        "key": certificates["client_key"],
        "cert": certificates["client_cert"],
        "ca": certificates["ca"],
    }


async def test_tls_names_the_caller(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """Over mutual TLS Nest sees the name in our certificate."""
    caller = connect(secure_server.port, tls_options=trust)
    assert await caller.send("peer", 1) == "orders"
    assert await caller.send("echo", "👍") == "👍"


async def test_stream_over_tls(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """A stream's own connection is as secure."""
    caller = connect(secure_server.port, tls_options=trust)
    data = {"kind": "interval", "n": 3, "ms": 5}
    assert await caller.take(10, "stream", data) == [0, 1, 2]


async def test_untrusted_certificate_is_refused(
    connect: Connect, secure_server: NestServer
) -> None:
    """A server of an authority that we do not know is not called."""
    caller = connect(secure_server.port, tls_options={})
    with pytest.raises(NotConnected, match=r"self.signed certificate|unable to get"):
        await caller.send("echo", 1)


async def test_mutual_tls_needs_a_certificate(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """Without one of our own Nest hangs up, and the call says so."""
    caller = connect(secure_server.port, tls_options={"ca": trust["ca"]})
    with pytest.raises((ConnectionLost, NotConnected)):
        await caller.send("echo", 1)
