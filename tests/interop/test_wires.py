"""The harness by real brokers, Nest to Nest: the ground of the tests of each wire."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.brokers.mosquitto import Mosquitto
from tests.brokers.nats import NATS
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.redis import Redis

from .harness import NestClient, StartNest
from .payloads import BROKEN, LARGE_TEXT
from .wires import Way, at

# Names that the wire would take apart, and what each splits them at.
LEVELS = {"REDIS": ".", "NATS": ".", "MQTT": "/", "RMQ": "."}


@pytest.fixture(scope="module", params=[Redis, NATS, Mosquitto, RabbitMQ])
def wire(
    request: pytest.FixtureRequest,
    start_server: Callable[..., Any],
    start_nest_server: StartNest,
) -> Way:
    """Give the way to a Nest service, by each broker in turn."""
    way = at(start_server(request.param))
    separator = LEVELS[way["transport"]]
    start_nest_server(**way, handlers=[{"pattern": f"plain{separator}one"}])
    return way


async def test_request_is_answered(wire: Way, nest_client: NestClient) -> None:
    """A request brings back its one value."""
    assert (await nest_client.send(wire, {"cmd": "sum"}, [1, 2, 3])).value == 6


async def test_key_order_of_an_object_pattern_is_free(
    wire: Way, nest_client: NestClient
) -> None:
    """An object pattern is found whatever the order of its keys."""
    pattern = {"a": {"c": 3, "d": 2}, "b": 1}
    assert (await nest_client.send(wire, pattern, 1)).value == {"deep": 1}


async def test_text_beyond_ascii_arrives_whole(
    wire: Way, nest_client: NestClient
) -> None:
    """In the pattern, the payload and the answer."""
    assert (await nest_client.send(wire, "größe.👍", "👍🏽")).value == "👍🏽"


@pytest.mark.parametrize("value", [False, 0, "", [], {}])
async def test_payload_comes_back_as_it_was(
    wire: Way, nest_client: NestClient, value: Any
) -> None:
    """What is false or empty is a payload as any other."""
    assert (await nest_client.send(wire, "echo", value)).values == [value]


@pytest.mark.parametrize(("name", "values"), [("null", [None]), ("undefined", [])])
async def test_nothing_is_not_null(
    wire: Way, nest_client: NestClient, name: str, values: list[Any]
) -> None:
    """An undefined result is no value, which is not null."""
    assert (await nest_client.send(wire, "constant", name)).values == values


async def test_stream_is_collected(wire: Way, nest_client: NestClient) -> None:
    """Every item of a stream arrives, and its end."""
    data = {"kind": "delayedEnd", "n": 3, "ms": 5}
    assert (await nest_client.send(wire, "stream", data)).values == [0, 1, 2]


async def test_error_is_the_peers_value(wire: Way, nest_client: NestClient) -> None:
    """A failed call carries the JSON value that came over the wire."""
    answer = await nest_client.send(wire, "fail", "object")
    assert answer.error == BROKEN


async def test_5_mb_go_both_ways(wire: Way, nest_client: NestClient) -> None:
    """A large message arrives as it was."""
    assert (await nest_client.send(wire, "echo", LARGE_TEXT)).value == LARGE_TEXT


async def test_200_requests_are_in_flight_at_once(
    wire: Way, nest_client: NestClient
) -> None:
    """Each is answered only once all 200 are there."""
    answers = await nest_client.send_many(wire, "meet", [200] * 200)
    assert {answer.value for answer in answers} == {*range(1, 201)}


async def test_events_are_recorded(wire: Way, nest_client: NestClient) -> None:
    """A request can wait until the handlers of an event have run."""
    await nest_client.send(wire, "events.forget", 1)
    await nest_client.emit(wire, {"topic": "orders", "kind": "paid"}, 0)
    events = (await nest_client.send(wire, "events", 1)).value
    assert events == [{"handler": "object", "data": 0}]


async def test_handler_of_the_test_answers(wire: Way, nest_client: NestClient) -> None:
    """A test may add handlers, which say what came, by which wire."""
    pattern = f"plain{LEVELS[wire['transport']]}one"
    answer = (await nest_client.send(wire, pattern, 7)).value
    assert (answer["handler"], answer["data"]) == (pattern, 7)
    assert answer["wire"]


# --- what one wire alone has ------------------------------------------------------


async def test_redis_globs(
    start_server: Callable[..., Any],
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """The handler of a glob knows the channel and the metadata."""
    way = at(start_server(Redis, password="secret"))
    start_nest_server(**way, wildcards=True, handlers=[{"pattern": "user.*"}])
    client = {**way, "metadata": {"tenant": "größe"}}
    answer = (await nest_client.send(client, "user.made", 1)).value
    assert answer == {
        "handler": "user.*",
        "data": 1,
        "wire": {"channel": "user.made", "metadata": {"tenant": "größe"}},
    }


async def test_nats_headers_and_queues(
    start_server: Callable[..., Any],
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """Of two services in a queue group one gets an event, with its headers."""
    way = at(start_server(NATS, password="secret"))
    handlers = [{"pattern": "user.>", "event": True, "extras": {"queue": "a"}}]
    for _ in range(2):
        start_nest_server(**way, queue="all", handlers=handlers)
    record = {"headers": {"tenant": "größe"}}
    await nest_client.emit(way, "user.made.now", 1, record=record)
    answers = [await nest_client.send(way, "events.wire", 0) for _ in range(20)]
    events = {str(answer.value) for answer in answers if answer.value}
    assert len(events) == 1
    assert "{'subject': 'user.made.now', 'headers': {'tenant': ['größe']}}" in str(
        events
    )


async def test_mqtt_levels_and_qos(
    start_server: Callable[..., Any],
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """A handler's QoS is its own, and properties come with MQTT 5."""
    way = at(start_server(Mosquitto, password="secret"), protocolVersion=5)
    handlers = [{"pattern": "user/+", "event": True, "extras": {"qos": 1}}]
    start_nest_server(**way, handlers=handlers)
    record = {"qos": 2, "properties": {"userProperties": {"tenant": "größe"}}}
    await nest_client.emit(way, "user/made", 1, record=record)
    event = (await nest_client.send(way, "events.wire", 1)).value[0]
    assert (event["wire"]["topic"], event["wire"]["qos"]) == ("user/made", 1)
    assert event["wire"]["properties"]["userProperties"] == {"tenant": "größe"}


async def test_rabbitmq_acks_and_records(
    private_rabbitmq: RabbitMQ,
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """A message that was put back comes again, with the options of its record."""
    way = at(private_rabbitmq, queue="interop-acks", queueOptions={"maxPriority": 5})
    handlers = [{"pattern": "paid", "event": True, "settle": "requeue"}]
    start_nest_server(**way, noAck=False, handlers=handlers)
    record = {"headers": {"tenant": "größe"}, "priority": 3, "persistent": True}
    await nest_client.emit(way, "paid", 1, record=record)
    events = (await nest_client.send(way, "events.wire", 2)).value
    assert [event["wire"]["fields"]["redelivered"] for event in events] == [False, True]
    properties = events[0]["wire"]["properties"]
    assert properties["headers"] == {"tenant": "größe"}
    assert (properties["priority"], properties["deliveryMode"]) == (3, 2)
    queues = private_rabbitmq.ctl("list_queues", "name", "messages_unacknowledged")
    assert "interop-acks\t0" in queues


async def test_rabbitmq_wildcards(
    private_rabbitmq: RabbitMQ,
    start_nest_server: StartNest,
    nest_client: NestClient,
) -> None:
    """Patterns are routing keys of a topic exchange."""
    way = at(private_rabbitmq, queue="interop-wildcards", wildcards=True)
    start_nest_server(**way, handlers=[{"pattern": "user.#"}])
    answer = (await nest_client.send(way, "user.made.now", 1)).value
    assert answer["handler"] == "user.#"
    assert answer["wire"]["fields"]["routingKey"] == "user.made.now"
