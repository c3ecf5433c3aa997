"""Nest and we call each other by a real RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pamqp import commands

from django_microservices import (
    UNSET,
    ConnectionLost,
    MessageTimeout,
    NoHandler,
    RemoteError,
    TransportRefused,
    create_client,
)
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ
from tests.transports.rabbitmq_peer import Got, Peer

from .harness import Answer, NestClient, NestServer
from .ours import APP, OurServer
from .test_we_call_nest import Caller, SyncCaller
from .wires import at

TRANSPORT = "django_microservices.transports.RabbitMQTransport"
INTERNAL = {"status": "error", "message": "Internal server error"}
NO_HANDLER = "There is no matching message handler defined in the remote service."
FIVE_MB = 5 * 1024 * 1024
LARGE = 4 * FIVE_MB
TEXTS = ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"]
PATTERNS = [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}]
NEST, US, WILD = (f"{name}-{new_id()}" for name in ("nest", "us", "wild"))

Way = dict[str, Any]
Connect = Callable[..., Caller]
StartNest = Callable[..., NestServer]


# --- we call Nest -----------------------------------------------------------------


@pytest.fixture(scope="module")
def nests_queue(rabbitmq_server: RabbitMQ, start_nest_server: StartNest) -> str:
    """The queue of a Nest service with Nest's defaults."""
    start_nest_server(**at(rabbitmq_server, queue=NEST))
    return NEST


@pytest.fixture(scope="module")
def nests_exchange(rabbitmq_server: RabbitMQ, start_nest_server: StartNest) -> str:
    """The exchange, and queue, of a Nest service with wildcards."""
    handlers = [{"pattern": "user.*"}, {"pattern": "audit.#", "event": True}]
    way = at(rabbitmq_server, queue=WILD, wildcards=True)
    start_nest_server(**way, handlers=handlers)
    return WILD


@pytest.fixture(params=[Caller, SyncCaller], ids=["async", "sync"])
async def connect(
    request: pytest.FixtureRequest, rabbitmq_server: RabbitMQ
) -> AsyncIterator[Connect]:
    """Return a function that makes a client."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> Caller:
            options = {"url": rabbitmq_server.url, "max_message_size": LARGE} | options
            caller: Caller = request.param(create_client(TRANSPORT, **options))
            stack.push_async_callback(caller.close)
            return caller

        yield make


@pytest.fixture
def nest(connect: Connect, nests_queue: str) -> Caller:
    """Give our client of the Nest service."""
    return connect(queue=nests_queue)


async def test_nest_answers(nest: Caller) -> None:
    """A request brings back its one value."""
    assert await nest.send({"cmd": "sum"}, [1, 2, 3]) == 6


@pytest.mark.parametrize("pattern", PATTERNS, ids=["sorted", "unsorted"])
async def test_nest_finds_our_pattern(nest: Caller, pattern: Any) -> None:
    """An object pattern is found whatever the order of its keys."""
    assert await nest.send(pattern, 1) == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7", 7.0])
async def test_number_is_a_pattern_for_nest(nest: Caller, pattern: Any) -> None:
    """A number is found by its text."""
    assert await nest.send(pattern, 1) == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_reaches_nest_whole(nest: Caller, text: str) -> None:
    """In the pattern, the payload and the answer."""
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
    """A large message travels in many frames."""
    text = "👍" * (FIVE_MB // 4)
    assert await nest.send("echo", text, timeout=30) == text


async def test_200_requests_at_nest_at_once(nest: Caller) -> None:
    """Each is answered only once all 200 are there."""
    answers = await asyncio.gather(*(nest.send("meet", 200) for _ in range(200)))
    assert {*answers} == {*range(1, 201)}


async def test_properties_are_seen_by_nest(connect: Connect, nests_queue: str) -> None:
    """Headers of the client and of the message, our own, and what options say."""
    client = connect(queue=nests_queue, headers={"app": "shop", "tenant": "none"})
    seen = await client.send(
        "context",
        1,
        timeout=3,
        headers={"tenant": "größe"},
        options={"priority": 3, "message_id": "m1", "content_type": "x/y"},
    )
    properties = seen["properties"]
    assert seen["pattern"] == "context"
    assert (seen["fields"]["exchange"], seen["fields"]["routingKey"]) == ("", NEST)
    assert properties["headers"] == {
        "app": "shop",
        "tenant": "größe",
        "dm-peer": "1",
        "dm-timeout": "3000",
    }
    assert (properties["priority"], properties["messageId"]) == (3, "m1")
    assert (properties["contentType"], properties["deliveryMode"]) == ("x/y", 1)
    assert properties["replyTo"].startswith("amq.rabbitmq.reply-to.")
    assert properties["correlationId"]


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


async def test_nest_knows_no_such_pattern(nest: Caller) -> None:
    """Nest says so at once."""
    with pytest.raises(NoHandler, match="cmd"):
        await nest.send({"cmd": "none"}, 1, timeout=None)


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
    """An event reaches every handler, also by an object pattern."""
    await nest.send("events.forget", 1)
    await nest.emit("created", {"id": "👍"})
    await nest.emit({"kind": "paid", "topic": "orders"}, 0)
    events = await nest.send("events.wire", 3)
    assert sorted(one["handler"] for one in events) == ["first", "object", "second"]
    properties = events[0]["wire"]["properties"]
    assert properties["deliveryMode"] == 2
    assert "correlationId" not in properties
    assert "replyTo" not in properties


async def test_nest_with_wildcards(connect: Connect, nests_exchange: str) -> None:
    """Nest's ``wildcards``: an exchange with the name of the queue."""
    client = connect(queue=nests_exchange, wildcards=True)
    answer = await client.send("user.made", 1, timeout=None)
    assert (answer["handler"], answer["data"]) == ("user.*", 1)
    assert answer["wire"]["fields"]["exchange"] == WILD
    assert answer["wire"]["fields"]["routingKey"] == "user.made"
    assert await client.send(PATTERNS[1], 1) == {"deep": 1}
    await client.emit("audit.a.b", 7)
    events = await client.send("events.wire", 1)
    assert events[0]["wire"]["pattern"] == "audit.a.b"
    with pytest.raises(NoHandler):
        await client.send("nobody.listens", 1, timeout=None)


async def test_nest_that_acknowledges(
    rabbitmq_server: RabbitMQ, start_nest_server: StartNest, connect: Connect
) -> None:
    """What Nest gives back comes again, and what it acknowledges is gone."""
    queue = f"acks-{new_id()}"
    handlers = [
        {"pattern": "again", "event": True, "settle": "requeue"},
        {"pattern": "never", "event": True, "settle": "nack"},
    ]
    options = {"queue": queue, "noAck": False, "prefetchCount": 10}
    start_nest_server(**at(rabbitmq_server, **options), handlers=handlers)
    client = connect(queue=queue)
    await client.emit("never", 1)
    await client.emit("again", 2)
    events = await client.send("events.wire", 3)
    assert [(one["handler"], one["data"]) for one in events] == [
        ("never", 1),
        ("again", 2),
        ("again", 2),
    ]
    again = [one["wire"]["fields"]["redelivered"] for one in events[1:]]
    assert again == [False, True]


async def test_nests_share_a_queue(
    rabbitmq_server: RabbitMQ, start_nest_server: StartNest, connect: Connect
) -> None:
    """Of two Nest services on one queue one answers."""
    queue = f"shared-{new_id()}"
    for _ in range(2):
        start_nest_server(**at(rabbitmq_server, queue=queue))
    client = connect(queue=queue)
    assert await client.take(10, "stream", {"kind": "of", "n": 3}) == [0, 1, 2]


async def test_queue_that_nest_declared_otherwise(
    rabbitmq_server: RabbitMQ, start_nest_server: StartNest, connect: Connect
) -> None:
    """The same options are taken in snake_case, and others are refused."""
    queue = f"options-{new_id()}"
    given = {"durable": False, "messageTtl": 60_000, "maxPriority": 3}
    way = at(rabbitmq_server, queue=queue, queueOptions=given)
    start_nest_server(**way)
    same = {"durable": False, "message_ttl": 60.0, "max_priority": 3}
    assert await connect(queue=queue, queue_options=same).send("echo", 1) == 1
    with pytest.raises(TransportRefused, match="inequivalent arg"):
        await connect(queue=queue).send("echo", 1)


async def test_calls_end_with_the_broker(
    private_rabbitmq: RabbitMQ, start_nest_server: StartNest, connect: Connect
) -> None:
    """A call that is in flight when RabbitMQ ends fails at once."""
    queue = f"ends-{new_id()}"
    start_nest_server(**at(private_rabbitmq, queue=queue))
    client = connect(url=private_rabbitmq.url, queue=queue)
    await client.send("echo", 1)
    call = asyncio.ensure_future(client.send("slow", 10_000, timeout=None))
    await client.send("echo", 1)
    await asyncio.to_thread(private_rabbitmq.kill)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(call, 10)


# --- Nest calls us ----------------------------------------------------------------

HANDLERS = "tests.interop.rabbitmq_handlers"


def entry(url: str, **options: Any) -> dict[str, Any]:
    """Give an entry of ``SERVERS``."""
    return {
        "TRANSPORT": TRANSPORT,
        "OPTIONS": {"url": url, "group": US, "max_message_size": LARGE, **options},
        "CONCURRENCY": 250,
        "HANDLERS": [APP, HANDLERS],
    }


@pytest.fixture(scope="module")
def our_broker(rabbitmq_server: RabbitMQ) -> Iterator[RabbitMQ]:
    """Give a RabbitMQ with our service, with our defaults and with Nest's wildcards."""
    options = {"queue": f"{US}.wild", "wildcards": True}
    ours = OurServer(
        default=entry(rabbitmq_server.url, redelivery_delay=0.1),
        wild=entry(rabbitmq_server.url, **options),
    )
    yield rabbitmq_server
    ours.close()


@pytest.fixture
def us(our_broker: RabbitMQ) -> Way:
    """Give Nest the way to our service."""
    return at(our_broker, queue=US)


@pytest.fixture
def wildly(our_broker: RabbitMQ) -> Way:
    """Give Nest the way to it by an exchange."""
    return at(our_broker, queue=f"{US}.wild", wildcards=True)


async def test_we_answer(us: Way, nest_client: NestClient) -> None:
    """A request to a plain function brings back its one value."""
    assert (await nest_client.send(us, {"cmd": "sum"}, [1, 2, 3])).value == 6


@pytest.mark.parametrize("pattern", PATTERNS, ids=["sorted", "unsorted"])
async def test_we_find_the_pattern_of_nest(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """An object pattern is found whatever the order of its keys."""
    assert (await nest_client.send(us, pattern, 1)).value == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7"])
async def test_number_is_a_pattern_for_us(
    us: Way, nest_client: NestClient, pattern: Any
) -> None:
    """A number is found by its text."""
    assert (await nest_client.send(us, pattern, 1)).value == "seven"


@pytest.mark.parametrize("text", TEXTS)
async def test_text_of_nest_arrives_whole(
    us: Way, nest_client: NestClient, text: str
) -> None:
    """In the pattern, the payload and the answer."""
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
    """A large message travels in many frames."""
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


async def test_we_take_events_of_nest(us: Way, nest_client: NestClient) -> None:
    """An event reaches a sync and an async handler, also by an object pattern."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "created", {"id": "👍"})
    await nest_client.emit(us, {"kind": "paid", "topic": "orders"}, 0)
    events = (await nest_client.send(us, "events", 3)).value
    assert sorted(event["handler"] for event in events) == ["first", "object", "second"]


async def test_event_by_two_wildcards_runs_once(
    us: Way, wildly: Way, nest_client: NestClient
) -> None:
    """Whether Nest sends it to our queue, or to our exchange."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "audit.a", 1)
    await nest_client.emit(wildly, "audit.a.b", 2)
    events = (await nest_client.send(us, "events", 2)).value
    assert events == [
        {"handler": "audit.a", "data": 1},
        {"handler": "audit.a.b", "data": 2},
    ]


async def test_we_know_what_nest_says_beside(us: Way, nest_client: NestClient) -> None:
    """The handler knows the properties of Nest's record."""
    record = {
        "headers": {"tenant": "größe"},
        "priority": 3,
        "persistent": True,
        "expiration": "60000",
        "messageId": "m1",
    }
    answer = await nest_client.send(us, "user.gone", 1, record=record)
    assert answer.value == {
        "data": 1,
        "exchange": "",
        "routing_key": US,
        "pattern": "user.gone",
        "headers": {"tenant": "größe"},
        "priority": 3,
        "delivery_mode": 2,
        "expiration": "60000",
        "message_id": "m1",
    }


async def test_we_answer_by_a_wildcard(wildly: Way, nest_client: NestClient) -> None:
    """Through the exchange of Nest's wildcards; a handler of its own is first."""
    answer = (await nest_client.send(wildly, "user.gone", 1)).value
    assert (answer["exchange"], answer["routing_key"]) == (f"{US}.wild", "user.gone")
    assert (await nest_client.send(wildly, "user.made", 1)).values == ["made"]


async def test_we_know_no_such_pattern(us: Way, nest_client: NestClient) -> None:
    """Nest is told so at once, in its own words."""
    answer = await nest_client.send(us, "nobody", 1)
    assert answer == Answer(error=NO_HANDLER, failed=True)


async def test_event_of_nest_that_fails(us: Way, nest_client: NestClient) -> None:
    """It is tried again, and then kept with its reason: Nest would have lost it."""
    await nest_client.send(us, "events.forget", 1)
    await nest_client.emit(us, "failed", 1)
    await nest_client.emit(us, "given.back", 2)
    await nest_client.emit(us, "nobody", 3)
    events = (await nest_client.send(us, "events", 7)).value
    assert [one["data"] for one in events if one["handler"] == "failed"] == [1] * 5
    assert [one["data"] for one in events if one["handler"] == "given back"] == [2, 2]
    letters = await _buried(us["urls"][0], 3)
    reasons = {(one.properties.headers or {})["x-dm-reason"] for one in letters}
    assert reasons == {"ValueError", "enough", "no handler"}


async def _buried(url: str, count: int) -> list[Got]:
    """Wait for so many dead letters of our service."""
    found: list[Got] = []
    with Peer(url) as peer:
        queue = f"{US}.dead"
        peer.call(commands.Queue.Declare(queue=queue, durable=True))
        async with asyncio.timeout(20):
            while len(found) < count:
                found += peer.drain(queue)
                await asyncio.sleep(0.01)
    return found


async def test_replicas_and_services(
    rabbitmq_server: RabbitMQ, start_nest_server: StartNest, nest_client: NestClient
) -> None:
    """Our replicas share what each other service gets its own of, Nest among them."""
    exchange, nests = f"exchange-{new_id()}", f"nests-{new_id()}"
    way = at(rabbitmq_server, queue=nests, exchange=exchange, wildcards=True)
    start_nest_server(**way, handlers=[{"pattern": "counted", "event": True}])
    groups = {"one": "a", "two": "a", "three": "b"}
    ours = OurServer(
        **{
            name: {
                **entry(
                    rabbitmq_server.url,
                    group=f"{exchange}-{group}",
                    exchange=exchange,
                ),
                "HANDLERS": [HANDLERS],
            }
            for name, group in groups.items()
        }
    )
    try:
        for number in range(20):
            await nest_client.emit(way, "counted", number)
        of_nest = (await nest_client.send(way, "events", 20)).value
        us = at(rabbitmq_server, queue=f"{exchange}-a")
        of_us = (await nest_client.send(us, "ours.events", 40)).value
    finally:
        ours.close()
    assert sorted(one["data"] for one in of_nest) == [*range(20)]
    assert sorted(one["data"] for one in of_us) == sorted([*range(20)] * 2)
