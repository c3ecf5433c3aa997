"""Nest and we call each other by a real NATS."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from django_microservices import (
    UNSET,
    ConnectionLost,
    MessageTimeout,
    NoHandler,
    RemoteError,
    create_client,
)
from tests.brokers.nats import NATS

from .harness import Answer, NestClient, NestServer
from .ours import APP, OurServer
from .test_we_call_nest import Caller, SyncCaller
from .wires import at

TRANSPORT = "django_microservices.transports.NATSTransport"
INTERNAL = {"status": "error", "message": "Internal server error"}
FIVE_MB = 5 * 1024 * 1024
TEXTS = ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"]
PATTERNS = [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}]

Way = dict[str, Any]
Connect = Callable[..., Caller]
StartNest = Callable[..., NestServer]
StartServer = Callable[..., NATS]


# --- we call Nest -----------------------------------------------------------------


@pytest.fixture(scope="module")
def nests_nats(start_server: StartServer, start_nest_server: StartNest) -> NATS:
    """A NATS with a Nest service, some of whose patterns have wildcards."""
    server = start_server(NATS, password="secret")
    wild = [{"pattern": "user.*"}, {"pattern": "audit.>", "event": True}]
    start_nest_server(**at(server), handlers=wild)
    return server


@pytest.fixture(params=[Caller, SyncCaller], ids=["async", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Return a function that makes a client at a NATS."""
    async with AsyncExitStack() as stack:

        def make(server: NATS, **options: Any) -> Caller:
            client = create_client(TRANSPORT, url=server.url, **options)
            caller: Caller = request.param(client)
            stack.push_async_callback(caller.close)
            return caller

        yield make


@pytest.fixture
def nest(connect: Connect, nests_nats: NATS) -> Caller:
    """Give our client of the Nest service."""
    return connect(nests_nats)


async def test_nest_answers(nest: Caller) -> None:
    """A request brings back its one value."""
    assert await nest.send({"cmd": "sum"}, [1, 2, 3]) == 6


@pytest.mark.parametrize("pattern", PATTERNS, ids=["sorted", "unsorted"])
async def test_nest_finds_our_subject(nest: Caller, pattern: Any) -> None:
    """The route of an object pattern is the same text on both sides."""
    assert await nest.send(pattern, 1) == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7", 7.0])
async def test_number_is_a_pattern_for_nest(nest: Caller, pattern: Any) -> None:
    """A number is the subject of its text."""
    assert await nest.send(pattern, 1) == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_reaches_nest_whole(nest: Caller, text: str) -> None:
    """In the subject, the payload and the answer."""
    assert await nest.send("größe.👍", {text: [text]}) == {text: [text]}


@pytest.mark.parametrize(
    "value",
    [None, False, 0, "", [], {}, [None, False, 0, ""], {"a": None, "b": {"c": [[]]}}],
)
async def test_nest_gives_back_what_it_got(nest: Caller, value: Any) -> None:
    """What is false or empty is a payload as any other."""
    answer = await nest.send("echo", value)
    assert (type(answer), answer) == (type(value), value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("null", None),
        ("undefined", UNSET),
        ("emoji", "naïve 👍🏽 日本語"),
        ("date", "1970-01-01T00:00:00.000Z"),
        ("nan", None),
        ("holes", [None, 1]),
        ("partial", {"kept": 1}),
    ],
)
async def test_result_of_nest(nest: Caller, name: str, value: Any) -> None:
    """A result is plain Python, and an undefined one UNSET."""
    answer = await nest.send("constant", name)
    assert (type(answer), answer) == (type(value), value)


async def test_5_mb_to_nest_and_back(nest: Caller) -> None:
    """NATS' own limit counts, which is 8 MB here."""
    text = "👍" * (FIVE_MB // 4)
    assert await nest.send("echo", text) == text


async def test_200_requests_at_nest_at_once(nest: Caller) -> None:
    """Each is answered only once all 200 are there."""
    answers = await asyncio.gather(*(nest.send("meet", 200) for _ in range(200)))
    assert {*answers} == {*range(1, 201)}


async def test_headers_are_seen_by_nest(nests_nats: NATS, connect: Connect) -> None:
    """Those of the client, of the message, and our own."""
    client = connect(nests_nats, headers={"app": "shop", "tenant": "none"})
    seen = await client.send("context", 1, timeout=3, headers={"tenant": "größe"})
    assert seen["subject"] == "context"
    assert seen["headers"] == {
        "app": ["shop"],
        "tenant": ["größe"],
        "dm-peer": ["1"],
        "dm-timeout": ["3000"],
    }


async def test_late_answer_of_nest_is_dropped(nest: Caller) -> None:
    """After a timeout the next call is answered."""
    with pytest.raises(MessageTimeout):
        await nest.send("slow", 200, timeout=0.05)
    assert await nest.send("slow", 250) == 250


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("text", {"status": "error", "message": "broken"}),
        ("object", {"code": 42, "reason": "broken"}),
        ("list", ["broken", 42]),
        ("wrapped", {}),
        ("plain", INTERNAL),
        ("thrownText", INTERNAL),
    ],
)
async def test_error_of_nest(nest: Caller, name: str, error: Any) -> None:
    """A RemoteError carries exactly what Nest's filter sent."""
    with pytest.raises(RemoteError) as raised:
        await nest.send("fail", name)
    assert raised.value.error == error


async def test_nobody_listens_for_an_unknown_pattern(nest: Caller) -> None:
    """NATS says so at once."""
    with pytest.raises(NoHandler, match="cmd"):
        await nest.send({"cmd": "none"}, 1, timeout=None)


@pytest.mark.parametrize("pattern", ["a b", {"cmd": "a b"}, "user.*", "a..b"])
async def test_pattern_that_nats_cannot_carry(nest: Caller, pattern: Any) -> None:
    """Nest raises InvalidSubjectError for spaces; we name the pattern."""
    with pytest.raises(ValueError, match="is no subject of NATS"):
        await nest.send(pattern, 1)


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
async def test_stream_of_nest(nest: Caller, kind: str, items: list[Any]) -> None:
    """Every item arrives, whether or not the end comes with the last of them."""
    assert await nest.take(10, "stream", {"kind": kind, "n": 3, "ms": 5}) == items


async def test_failing_stream_of_nest(nest: Caller) -> None:
    """A stream that fails has delivered what came before."""
    data = {"kind": "failing", "n": 2}
    assert await nest.take(2, "stream", data) == [0, 1]
    with pytest.raises(RemoteError) as raised:
        await nest.take(3, "stream", data)
    assert raised.value.error == {"code": 42, "reason": "broken"}


async def test_nest_takes_our_events(nest: Caller) -> None:
    """An event reaches every handler, also by an object pattern or a wildcard."""
    await nest.send("events.forget", 1)
    await nest.emit("created", {"id": "👍"})
    events = await nest.send("events", 2)
    assert sorted(event["handler"] for event in events) == ["first", "second"]
    await nest.emit({"kind": "paid", "topic": "orders"}, 0)
    await nest.emit("audit.a.b", 7)
    events = await nest.send("events.wire", 4)
    found = {event["handler"]: event["wire"] for event in events}
    assert found["object"]["subject"] == '{"kind":"paid","topic":"orders"}'
    assert found["audit.>"]["subject"] == "audit.a.b"


async def test_nest_answers_by_a_wildcard(nest: Caller) -> None:
    """Its handler knows the subject and the headers."""
    answer = await nest.send("user.made", 1, headers={"tenant": "a"}, timeout=None)
    wire = {"subject": "user.made", "headers": {"tenant": ["a"], "dm-peer": ["1"]}}
    assert answer == {"handler": "user.*", "data": 1, "wire": wire}


async def test_nests_in_a_queue_group(
    start_server: StartServer, start_nest_server: StartNest, connect: Connect
) -> None:
    """Of two Nest services with one queue one answers."""
    server = start_server(NATS)
    for _ in range(2):
        start_nest_server(**at(server), queue="all")
    client = connect(server)
    assert await client.take(10, "stream", {"kind": "of", "n": 3}) == [0, 1, 2]


async def test_calls_end_with_the_broker(
    private_nats: NATS, start_nest_server: StartNest, connect: Connect
) -> None:
    """A call that is in flight when NATS ends fails at once."""
    start_nest_server(**at(private_nats))
    client = connect(private_nats)
    await client.send("echo", 1)
    call = asyncio.ensure_future(client.send("slow", 10_000, timeout=None))
    await client.send("echo", 1)
    await asyncio.to_thread(private_nats.kill)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(call, 10)


# --- Nest calls us ----------------------------------------------------------------

HANDLERS = "tests.interop.nats_handlers"


def entry(url: str, **options: Any) -> dict[str, Any]:
    """Give an entry of ``SERVERS``."""
    return {
        "TRANSPORT": TRANSPORT,
        "OPTIONS": {"url": url, "group": "us", **options},
        "CONCURRENCY": 250,
        "HANDLERS": [APP, HANDLERS],
    }


@pytest.fixture(scope="module")
def our_nats(start_server: StartServer) -> Iterator[NATS]:
    """Give a NATS with our service."""
    server = start_server(NATS, password="secret")
    ours = OurServer(default=entry(server.url))
    yield server
    ours.close()


@pytest.fixture
def us(our_nats: NATS) -> Way:
    """Give Nest the way to our service."""
    return at(our_nats)


async def test_we_answer(us: Way, nest_client: NestClient) -> None:
    """A request to a plain function brings back its one value."""
    assert (await nest_client.send(us, {"cmd": "sum"}, [1, 2, 3])).value == 6


@pytest.mark.parametrize("pattern", PATTERNS, ids=["sorted", "unsorted"])
async def test_we_find_the_subject_of_nest(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """The route of an object pattern is the same text on both sides."""
    assert (await nest_client.send(us, pattern, 1)).value == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7"])
async def test_number_is_a_pattern_for_us(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """A number is the subject of its text."""
    assert (await nest_client.send(us, pattern, 1)).value == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_of_nest_arrives_whole(
    us: Way, nest_client: NestClient, text: str
) -> None:
    """In the subject, the payload and the answer."""
    answer = await nest_client.send(us, "größe.👍", {text: [text]})
    assert answer.value == {text: [text]}


@pytest.mark.parametrize(
    "value",
    [False, 0, "", [], {}, [None, False, 0, ""], {"a": None, "b": {"c": [[]]}}, 1e21],
)
async def test_we_give_back_what_we_got(
    us: Way, nest_client: NestClient, value: Any
) -> None:
    """What is false or empty in either language is a payload as any other."""
    assert (await nest_client.send(us, "echo", value)).values == [value]


async def test_half_a_surrogate_comes_back(us: Way, nest_client: NestClient) -> None:
    """What JavaScript may write and Unicode has not is a payload too."""
    assert (await nest_client.send(us, "length", js=r"'\ud83d'")).value == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("null", [None]),
        ("undefined", []),
        ("emoji", ["naïve 👍🏽 日本語"]),
        ("milliseconds", ["2024-02-29T12:00:00.005Z"]),
        ("nan", [None]),
        ("partial", [{"kept": 1}]),
    ],
)
async def test_our_result(
    us: Way, nest_client: NestClient, name: str, values: list[Any]
) -> None:
    """An undefined result is no value, which is not null."""
    assert await nest_client.send(us, "constant", name) == Answer(values)


async def test_5_mb_from_nest_and_back(us: Way, nest_client: NestClient) -> None:
    """NATS' own limit counts, which is 8 MB here."""
    text = "👍" * (FIVE_MB // 4)
    assert (await nest_client.send(us, "echo", text)).value == text


async def test_200_requests_of_nest_at_once(us: Way, nest_client: NestClient) -> None:
    """Each is answered only once all 200 are there."""
    answers = await nest_client.send_many(us, "meet", [200] * 200)
    assert {answer.value for answer in answers} == {*range(1, 201)}


@pytest.mark.parametrize("pattern", ["fail", "fail.sync"])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("text", {"status": "error", "message": "broken"}),
        ("object", {"code": 42, "reason": "broken"}),
        ("emptyObject", {}),
        ("plain", INTERNAL),
        ("denied", {"status": "error", "message": "Forbidden resource"}),
    ],
)
async def test_our_error(
    us: Way, nest_client: NestClient, pattern: str, name: str, error: Any
) -> None:
    """An RpcException travels as it is, of anything else only the fixed text."""
    answer = await nest_client.send(us, pattern, name)
    assert answer == Answer(error=error, failed=True)


@pytest.mark.parametrize("kind", ["generator", "async", "paused"])
@pytest.mark.parametrize("length", [0, 1, 200])
async def test_our_stream(
    us: Way, nest_client: NestClient, kind: str, length: int
) -> None:
    """Every item of a generator of either kind arrives, and its end."""
    answer = await nest_client.send(us, f"stream.{kind}", length)
    assert answer == Answer([*range(length)])


async def test_our_failing_stream(us: Way, nest_client: NestClient) -> None:
    """A stream that fails has delivered what came before."""
    answer = await nest_client.send(us, "stream.failing", 2)
    error = {"code": 42, "reason": "broken"}
    assert answer == Answer([0, 1], error=error, failed=True)


async def test_streams_interleave(us: Way, nest_client: NestClient) -> None:
    """Nothing is mixed up."""
    answers = await nest_client.send_many(us, "stream.paused", [9] * 20)
    assert [answer.values for answer in answers] == [[*range(9)]] * 20


async def test_stream_ends_with_its_reader(us: Way, nest_client: NestClient) -> None:
    """When Nest unsubscribes nobody hears the next item, and the handler is told."""
    await nest_client.send(us, "events.forget", 1)
    answer = await nest_client.send(us, "stream.endless", "x", take=3)
    assert answer.values == [0, 1, 2]
    events = (await nest_client.send(us, "events", 1)).value
    assert events == [{"handler": "endless ended", "data": "x"}]


async def test_we_take_events_of_nest(us: Way, nest_client: NestClient) -> None:
    """An event reaches a sync and an async handler, also by an object pattern."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "created", {"id": "👍"})
    await nest_client.emit(us, {"kind": "paid", "topic": "orders"}, 0)
    events = (await nest_client.send(us, "events", 3)).value
    assert sorted(event["handler"] for event in events) == ["first", "object", "second"]


async def test_event_by_two_wildcards_runs_once(
    us: Way, nest_client: NestClient
) -> None:
    """NATS makes a copy for each pattern, and the handler runs for one of them."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "audit.a", 1)
    await nest_client.emit(us, "audit.a.b", 2)
    events = (await nest_client.send(us, "events", 2)).value
    assert events == [
        {"handler": "audit.a", "data": 1},
        {"handler": "audit.a.b", "data": 2},
    ]


async def test_we_answer_by_a_wildcard(us: Way, nest_client: NestClient) -> None:
    """The handler knows subject and headers; a handler of its own is first."""
    record = {"headers": {"tenant": "größe"}}
    answer = await nest_client.send(us, "user.gone", 1, record=record)
    assert answer.value == {
        "data": 1,
        "subject": "user.gone",
        "pattern": "user.gone",
        "headers": {"tenant": "größe"},
    }
    assert (await nest_client.send(us, "user.made", 1)).values == ["made"]


async def test_nobody_listens_for_nest(us: Way, nest_client: NestClient) -> None:
    """For a pattern that we do not have NATS tells Nest that nobody listens."""
    answer = await nest_client.send(us, "nobody", 1)
    assert answer.error["message"].startswith(
        "Empty response. There are no subscribers"
    )


async def test_replicas_and_services(
    start_server: StartServer, start_nest_server: StartNest, nest_client: NestClient
) -> None:
    """Our replicas share, each other service gets its own; a named queue joins all."""
    server = start_server(NATS)
    way = at(server)
    wild = [
        {"pattern": "counted", "event": True},
        {"pattern": "shared", "event": True, "extras": {"queue": "together"}},
    ]
    start_nest_server(**way, queue="nest", handlers=wild)
    groups = {"one": "us", "two": "us", "three": "others"}
    ours = OurServer(
        **{
            name: {**entry(server.url, group=group), "HANDLERS": [HANDLERS]}
            for name, group in groups.items()
        }
    )
    try:
        for number in range(20):
            await nest_client.emit(way, "counted", number)
            await nest_client.emit(way, "shared", number)
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(20):
            while len(found) < 80:
                of_nest = (await nest_client.send(way, "events", 20)).value
                found = of_nest + (await nest_client.send(way, "ours.events", 40)).value
    finally:
        ours.close()
    seen: dict[str, list[int]] = {name: [] for name in ("counted", "shared")}
    for event in found:
        seen[event["handler"]].append(event["data"])
    assert sorted(seen["counted"]) == sorted([*range(20)] * 3)  # us, others, and Nest
    assert sorted(seen["shared"]) == [*range(20)]
