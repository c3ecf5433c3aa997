"""Nest and we call each other by a real RabbitMQ."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pamqp import commands

from django_microservices import NoHandler
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ
from tests.transports.rabbitmq_peer import Got, Peer

from .callers import Caller, Connect
from .harness import Answer, NestClient, StartNest
from .nest_calls_us import NestCallsUs
from .ours import APP, LARGE, OurServer, entry
from .payloads import NO_HANDLER
from .we_call_nest import Doomed, WeCallNest
from .wires import Way, at

TRANSPORT = "django_microservices.transports.RabbitMQTransport"
HANDLERS = "tests.interop.rabbitmq_handlers"

Place = dict[str, Any]
"""Where a client of ours finds a Nest service: the options of the transport."""

NEST, US, WILD = (f"{name}-{new_id()}" for name in ("nest", "us", "wild"))


@pytest.fixture(scope="module")
def nests_queue(rabbitmq_server: RabbitMQ, start_nest_server: StartNest) -> Place:
    """The queue of a Nest service with Nest's defaults."""
    start_nest_server(**at(rabbitmq_server, queue=NEST))
    return {"url": rabbitmq_server.url, "queue": NEST}


@pytest.fixture(scope="module")
def nests_exchange(rabbitmq_server: RabbitMQ, start_nest_server: StartNest) -> Place:
    """The exchange, and queue, of a Nest service with wildcards."""
    handlers = [{"pattern": "user.*"}, {"pattern": "audit.#", "event": True}]
    way = at(rabbitmq_server, queue=WILD, wildcards=True)
    start_nest_server(**way, handlers=handlers)
    return {"url": rabbitmq_server.url, "queue": WILD, "wildcards": True}


@pytest.fixture
def nest(connect: Connect, nests_queue: Place) -> Caller:
    """Give our client of the Nest service."""
    return connect(TRANSPORT, **nests_queue)


@pytest.fixture
def large_nest(connect: Connect, nests_queue: Place) -> Caller:
    """Give one with the limit raised, and patience: 5 MB travel in many frames."""
    options = {**nests_queue, "max_message_size": LARGE}
    return connect({"TRANSPORT": TRANSPORT, "OPTIONS": options, "TIMEOUT": 30})


@pytest.fixture
def doomed(
    connect: Connect, private_rabbitmq: RabbitMQ, start_nest_server: StartNest
) -> Doomed:
    """Give one whose RabbitMQ the test may end."""
    queue = f"ends-{new_id()}"
    start_nest_server(**at(private_rabbitmq, queue=queue))
    client = connect(TRANSPORT, url=private_rabbitmq.url, queue=queue)
    return private_rabbitmq.kill, client


class TestWeCallNest(WeCallNest):
    """What every wire does, and properties and wildcards."""

    async def test_properties_are_seen_by_nest(
        self, connect: Connect, nests_queue: Place
    ) -> None:
        """Headers of the client and of the message, our own, and what options say."""
        headers = {"app": "shop", "tenant": "none"}
        client = connect(TRANSPORT, **nests_queue, headers=headers)
        await client.connect()
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

    async def test_event_is_kept_and_asks_for_no_answer(self, nest: Caller) -> None:
        """RabbitMQ writes it down, and nothing says where a reply would go."""
        await nest.send("events.forget", 1)
        await nest.emit("created", {"id": "👍"})
        events = await nest.send("events.wire", 2)
        properties = events[0]["wire"]["properties"]
        assert properties["deliveryMode"] == 2
        assert "correlationId" not in properties
        assert "replyTo" not in properties

    async def test_nest_with_wildcards(
        self, connect: Connect, nests_exchange: Place
    ) -> None:
        """Nest's ``wildcards``: an exchange with the name of the queue."""
        client = connect(TRANSPORT, **nests_exchange)
        answer = await client.send("user.made", 1, timeout=None)
        assert (answer["handler"], answer["data"]) == ("user.*", 1)
        assert answer["wire"]["fields"]["exchange"] == WILD
        assert answer["wire"]["fields"]["routingKey"] == "user.made"
        assert await client.send({"b": 1, "a": {"d": 2, "c": 3}}, 1) == {"deep": 1}
        await client.emit("audit.a.b", 7)
        events = await client.send("events.wire", 1)
        assert events[0]["wire"]["pattern"] == "audit.a.b"
        with pytest.raises(NoHandler):
            await client.send("nobody.listens", 1, timeout=None)


@pytest.fixture(scope="module")
def our_broker(rabbitmq_server: RabbitMQ) -> Iterator[RabbitMQ]:
    """Give a RabbitMQ with our service, with our defaults and with Nest's wildcards."""
    service = {
        "url": rabbitmq_server.url,
        "group": US,
        "max_message_size": LARGE,
    }
    wild = {"queue": f"{US}.wild", "wildcards": True}
    ours = OurServer(
        default=entry(TRANSPORT, [APP, HANDLERS], **service, redelivery_delay=0.1),
        wild=entry(TRANSPORT, [APP, HANDLERS], **service, **wild),
    )
    with closing(ours):
        yield rabbitmq_server


@pytest.fixture
def us(our_broker: RabbitMQ) -> Way:
    """Give Nest the way to our service."""
    return at(our_broker, queue=US)


@pytest.fixture
def wildly(our_broker: RabbitMQ) -> Way:
    """Give Nest the way to it by an exchange."""
    return at(our_broker, queue=f"{US}.wild", wildcards=True)


class TestNestCallsUs(NestCallsUs):
    """What every wire does, and properties, wildcards and retries."""

    async def test_event_by_two_wildcards_runs_once(
        self, us: Way, wildly: Way, nest_client: NestClient
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

    async def test_we_know_what_nest_says_beside(
        self, us: Way, nest_client: NestClient
    ) -> None:
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

    async def test_we_answer_by_a_wildcard(
        self, wildly: Way, nest_client: NestClient
    ) -> None:
        """Through the exchange of Nest's wildcards; a handler of its own is first."""
        answer = (await nest_client.send(wildly, "user.gone", 1)).value
        assert answer["exchange"] == f"{US}.wild"
        assert answer["routing_key"] == "user.gone"
        assert (await nest_client.send(wildly, "user.made", 1)).values == ["made"]

    async def test_we_know_no_such_pattern(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """Nest is told so at once, in its own words."""
        answer = await nest_client.send(us, "nobody", 1)
        assert answer == Answer(error=NO_HANDLER, failed=True)

    async def test_event_of_nest_that_fails(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """It is tried again, and then kept with its reason: Nest would have lost it."""
        await nest_client.send(us, "events.forget", 1)
        await nest_client.emit(us, "failed", 1)
        await nest_client.emit(us, "given.back", 2)
        await nest_client.emit(us, "nobody", 3)
        events = (await nest_client.send(us, "events", 7)).value
        tried = sorted((one["handler"], one["data"]) for one in events)
        assert tried == [("failed", 1)] * 5 + [("given back", 2)] * 2
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
