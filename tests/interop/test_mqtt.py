"""Nest and we call each other by a real mosquitto, with MQTT 3.1.1 and 5."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from django_microservices import (
    UNSET,
    MessageTimeout,
    NoHandler,
    RemoteError,
    create_client,
)
from tests.brokers.mosquitto import Mosquitto

from .harness import Answer, NestClient, NestServer
from .ours import APP, LARGE, OurServer
from .test_we_call_nest import Caller, SyncCaller
from .wires import at

MQTT = "django_microservices.transports.MQTTTransport"
LEVELS = "tests.interop.mqtt_handlers"
INTERNAL = {"status": "error", "message": "Internal server error"}
FIVE_MB = 5 * 1024 * 1024
TEXTS = ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"]
VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])

Way = dict[str, Any]
Connect = Callable[..., Caller]


# --- we call Nest -----------------------------------------------------------------


@pytest.fixture(scope="module")
def nests_broker(
    start_server: Callable[..., Mosquitto],
    start_nest_server: Callable[..., NestServer],
) -> Mosquitto:
    """A mosquitto with a Nest service that speaks MQTT 5, with wildcards."""
    server = start_server(Mosquitto, password="secret")
    levels = [
        {"pattern": "user/+"},
        {"pattern": "audit/#", "event": True, "extras": {"qos": 2}},
    ]
    start_nest_server(**at(server, protocolVersion=5), handlers=levels)
    return server


@pytest.fixture(params=[Caller, SyncCaller], ids=["async", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Return a function that makes a client of ours."""
    async with AsyncExitStack() as stack:

        def make(server: Mosquitto, **options: Any) -> Caller:
            client = create_client(MQTT, url=server.url, **options)
            caller: Caller = request.param(client)
            stack.push_async_callback(caller.close)
            return caller

        yield make


@pytest.fixture(params=[4, 5], ids=["3.1.1", "5"])
def nest(
    request: pytest.FixtureRequest, connect: Connect, nests_broker: Mosquitto
) -> Caller:
    """Give our client of the Nest service."""
    return connect(nests_broker, protocol_version=request.param)


async def test_nest_answers(nest: Caller) -> None:
    """A request brings back its one value."""
    assert await nest.send({"cmd": "sum"}, [1, 2, 3]) == 6


@pytest.mark.parametrize(
    "pattern",
    [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}],
    ids=["sorted", "unsorted"],
)
async def test_nest_finds_our_topic(nest: Caller, pattern: Any) -> None:
    """The route of an object pattern is the same text on both sides."""
    assert await nest.send(pattern, 1) == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7", 7.0])
async def test_number_is_a_pattern_for_nest(nest: Caller, pattern: Any) -> None:
    """A number is the topic of its text."""
    assert await nest.send(pattern, 1) == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_reaches_nest_whole(nest: Caller, text: str) -> None:
    """In the topic, the payload and the answer."""
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


async def test_5_mb_to_nest_and_back(connect: Connect, nests_broker: Mosquitto) -> None:
    """With the limit raised a large message is as any other."""
    text = "👍" * (FIVE_MB // 4)
    large = connect(nests_broker, max_frame_size=LARGE)
    assert await large.send("echo", text) == text


async def test_200_requests_at_nest_at_once(nest: Caller) -> None:
    """Each is answered only once all 200 are there."""
    answers = await asyncio.gather(*(nest.send("meet", 200) for _ in range(200)))
    assert {*answers} == {*range(1, 201)}


async def test_late_answer_of_nest_is_dropped(nest: Caller) -> None:
    """After a timeout the next call on the topic is answered."""
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


async def test_nobody_listens_for_an_unknown_pattern(
    connect: Connect, nests_broker: Mosquitto
) -> None:
    """The call ends in time; with MQTT 5 and QoS 1 at once, since the broker tells."""
    with pytest.raises(MessageTimeout):
        await connect(nests_broker).send({"cmd": "none"}, 1, timeout=0.2)
    asking = connect(nests_broker, protocol_version=5)
    with pytest.raises(NoHandler, match="cmd"):
        await asking.send({"cmd": "none"}, 1, timeout=None, options={"qos": 1})


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
    await nest.emit("audit/a/b", 7)
    events = await nest.send("events.wire", 4)
    found = {event["handler"]: event["wire"] for event in events}
    assert found["object"]["topic"] == '{"kind":"paid","topic":"orders"}'
    assert found["audit/#"]["topic"] == "audit/a/b"


async def test_nest_answers_by_a_wildcard(nest: Caller) -> None:
    """Its handler knows the topic, and the answer comes there."""
    answer = await nest.send("user/made", 1)
    assert (answer["handler"], answer["data"]) == ("user/+", 1)
    assert answer["wire"]["topic"] == "user/made"


async def test_nest_sees_our_properties(
    connect: Connect, nests_broker: Mosquitto
) -> None:
    """With MQTT 5 headers are user properties, and options what they are called."""
    ours = connect(
        nests_broker, protocol_version=5, user_properties={"service": "orders"}
    )
    options = {"content_type": "application/json", "user_properties": {"a": "b"}}
    answer = await ours.send(
        "user/made", 1, timeout=3, headers={"tenant": "größe"}, options=options
    )
    properties = answer["wire"]["properties"]
    assert properties["contentType"] == "application/json"
    assert properties["userProperties"] == {
        "service": "orders",
        "a": "b",
        "tenant": "größe",
        "dm-peer": "1",
        "dm-timeout": "3000",
    }


@pytest.mark.parametrize("qos", [0, 1, 2])
@VERSIONS
async def test_nest_gets_our_qos(
    nests_broker: Mosquitto, version: int, qos: int
) -> None:
    """A message has the QoS that it was given, as far as the handler's goes."""
    client = create_client(MQTT, url=nests_broker.url, protocol_version=version)
    await client.asend("events.forget", 1)
    await client.aemit("audit/x", qos, options={"qos": qos})
    (event,) = await client.asend("events.wire", 1)
    await client.aclose()
    assert (event["data"], event["wire"]["qos"]) == (qos, qos)


# --- Nest calls us ----------------------------------------------------------------


@pytest.fixture(scope="module", params=[4, 5], ids=["3.1.1", "5"])
def us(
    request: pytest.FixtureRequest, start_server: Callable[..., Mosquitto]
) -> Iterator[Way]:
    """Give Nest the way to our service."""
    server = start_server(Mosquitto, password="secret")
    options = {
        "url": server.url,
        "protocol_version": request.param,
        "max_frame_size": LARGE,
    }
    entry = {"TRANSPORT": MQTT, "OPTIONS": options, "CONCURRENCY": 250}
    ours = OurServer(default={**entry, "HANDLERS": [APP, LEVELS]})
    yield at(server, protocolVersion=request.param)
    ours.close()


async def test_we_answer(us: Way, nest_client: NestClient) -> None:
    """A request to a plain function brings back its one value."""
    assert (await nest_client.send(us, {"cmd": "sum"}, [1, 2, 3])).value == 6


@pytest.mark.parametrize(
    "pattern",
    [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}],
    ids=["sorted", "unsorted"],
)
async def test_we_find_the_topic_of_nest(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """The route of an object pattern is the same text on both sides."""
    assert (await nest_client.send(us, pattern, 1)).value == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7"])
async def test_number_is_a_pattern_for_us(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """A number is the topic of its text."""
    assert (await nest_client.send(us, pattern, 1)).value == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_of_nest_arrives_whole(
    us: Way, nest_client: NestClient, text: str
) -> None:
    """In the topic, the payload and the answer."""
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
    """With the limit raised a large message is as any other."""
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
    """On the one reply topic of a pattern nothing is mixed up."""
    answers = await nest_client.send_many(us, "stream.paused", [9] * 20)
    assert [answer.values for answer in answers] == [[*range(9)]] * 20


async def test_we_take_events_of_nest(us: Way, nest_client: NestClient) -> None:
    """An event reaches a sync and an async handler, also by an object pattern."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "created", {"id": "👍"})
    await nest_client.emit(us, {"kind": "paid", "topic": "orders"}, 0)
    events = (await nest_client.send(us, "events", 3)).value
    assert sorted(event["handler"] for event in events) == ["first", "object", "second"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_event_by_several_filters_runs_once(
    us: Way, nest_client: NestClient, qos: int
) -> None:
    """The broker makes a copy for each filter, and the handler runs for one of them."""
    await nest_client.send(us, "events.forget", 1)
    record = {"qos": qos}
    await nest_client.emit(us, "audit/a", 1, record=record)
    await nest_client.emit(us, "audit/b/c", 2, record=record)
    events = (await nest_client.send(us, "events", 2)).value
    assert sorted(events, key=lambda event: event["data"]) == [
        {"handler": f"audit/a {qos}", "data": 1},
        {"handler": f"audit/b/c {qos}", "data": 2},
    ]


async def test_we_answer_by_a_wildcard(us: Way, nest_client: NestClient) -> None:
    """The handler knows the topic; a handler of its own goes first."""
    answer = await nest_client.send(us, "user/gone", 1)
    assert answer.value == {
        "data": 1,
        "topic": "user/gone",
        "qos": 0,
        "pattern": "user/gone",
        "headers": {},
    }
    assert (await nest_client.send(us, "user/made", 1)).values == ["made"]


async def test_we_see_the_properties_of_nest(us: Way, nest_client: NestClient) -> None:
    """With MQTT 5 user properties are headers."""
    client = {**us, "userProperties": {"service": "shop"}}
    record = {"properties": {"userProperties": {"tenant": "größe"}}}
    answer = await nest_client.send(client, "user/gone", 1, record=record)
    expected = {"service": "shop", "tenant": "größe"}
    assert answer.value["headers"] == (expected if us["protocolVersion"] == 5 else {})
