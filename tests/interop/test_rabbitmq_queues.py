"""Nest and we share RabbitMQ's queues, and take and declare them alike."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from django_microservices import TransportRefused
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ

from .callers import Caller, Connect
from .harness import NestClient, StartNest
from .ours import OurServer, entry
from .wires import at

TRANSPORT = "django_microservices.transports.RabbitMQTransport"
HANDLERS = "tests.interop.rabbitmq_handlers"


@pytest.fixture
def queue() -> str:
    """Name a new queue."""
    return f"queue-{new_id()}"


@pytest.fixture
def start_nest(
    rabbitmq_server: RabbitMQ, start_nest_server: StartNest, queue: str
) -> Callable[..., None]:
    """Return a function that starts a Nest service on the queue."""

    def start(handlers: Sequence[dict[str, Any]] = (), **options: Any) -> None:
        way = at(rabbitmq_server, queue=queue, **options)
        start_nest_server(**way, handlers=handlers)

    return start


@pytest.fixture
def connect_to(connect: Connect, rabbitmq_server: RabbitMQ, queue: str) -> Connect:
    """Return a function that makes a client of ours of the queue, with options."""

    def make(**options: Any) -> Caller:
        return connect(TRANSPORT, url=rabbitmq_server.url, queue=queue, **options)

    return make


async def test_nest_that_acknowledges(
    start_nest: Callable[..., None], connect_to: Connect
) -> None:
    """What Nest gives back comes again, and what it acknowledges is gone."""
    handlers = [
        {"pattern": "again", "event": True, "settle": "requeue"},
        {"pattern": "never", "event": True, "settle": "nack"},
    ]
    start_nest(handlers, noAck=False, prefetchCount=10)
    client = connect_to()
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
    start_nest: Callable[..., None], connect_to: Connect
) -> None:
    """Of two Nest services on one queue one answers."""
    start_nest()
    start_nest()
    answer = await connect_to().take(10, "stream", {"kind": "of", "n": 3})
    assert answer == [0, 1, 2]


async def test_queue_that_nest_declared_otherwise(
    start_nest: Callable[..., None], connect_to: Connect
) -> None:
    """The same options are taken in snake_case, and others are refused."""
    given = {"durable": False, "messageTtl": 60_000, "maxPriority": 3}
    start_nest(queueOptions=given)
    same = {"durable": False, "message_ttl": 60.0, "max_priority": 3}
    assert await connect_to(queue_options=same).send("echo", 1) == 1
    with pytest.raises(TransportRefused, match="inequivalent arg"):
        await connect_to().send("echo", 1)


async def test_replicas_and_services(
    rabbitmq_server: RabbitMQ,
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """Our replicas share what other services, and Nest, get their own of."""
    exchange, nests = f"exchange-{new_id()}", f"nests-{new_id()}"
    way = at(rabbitmq_server, queue=nests, exchange=exchange, wildcards=True)
    start_nest_server(**way, handlers=[{"pattern": "counted", "event": True}])
    groups = {"one": "a", "two": "a", "three": "b"}
    options = {"url": rabbitmq_server.url, "exchange": exchange}
    ours = {
        name: entry(TRANSPORT, [HANDLERS], group=f"{exchange}-{group}", **options)
        for name, group in groups.items()
    }
    with closing(OurServer(**ours)):
        for number in range(20):
            await nest_client.emit(way, "counted", number)
        of_nest = (await nest_client.send(way, "events", 20)).value
        us = at(rabbitmq_server, queue=f"{exchange}-a")
        of_us = (await nest_client.send(us, "ours.events", 40)).value
    assert sorted(one["data"] for one in of_nest) == [*range(20)]
    assert sorted(one["data"] for one in of_us) == sorted([*range(20)] * 2)
