"""Nest and we call each other by a real mosquitto, with MQTT 3.1.1 and 5."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from django_microservices import MessageTimeout, NoHandler
from tests.brokers.mosquitto import Mosquitto

from .callers import Caller, Connect
from .harness import NestClient, StartNest
from .nest_calls_us import NestCallsUs
from .ours import APP, LARGE, OurServer, entry
from .we_call_nest import Doomed, WeCallNest
from .wires import Way, at

MQTT = "django_microservices.transports.MQTTTransport"
LEVELS = "tests.interop.mqtt_handlers"

StartServer = Callable[..., Mosquitto]


@pytest.fixture(scope="module", params=[4, 5], ids=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> int:
    """Give the version that our side speaks, by its number in the protocol."""
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def nests_broker(start_server: StartServer, start_nest_server: StartNest) -> Mosquitto:
    """A mosquitto with a Nest service that speaks MQTT 5, with wildcards."""
    server = start_server(Mosquitto, password="secret")
    levels = [
        {"pattern": "user/+"},
        {"pattern": "audit/#", "event": True, "extras": {"qos": 2}},
    ]
    start_nest_server(**at(server, protocolVersion=5), handlers=levels)
    return server


@pytest.fixture
def nest(connect: Connect, nests_broker: Mosquitto, version: int) -> Caller:
    """Give our client of the Nest service."""
    return connect(MQTT, url=nests_broker.url, protocol_version=version)


@pytest.fixture
def large_nest(connect: Connect, nests_broker: Mosquitto, version: int) -> Caller:
    """Give one with the limit raised."""
    options = {"protocol_version": version, "max_frame_size": LARGE}
    return connect(MQTT, url=nests_broker.url, **options)


@pytest.fixture
def doomed(
    connect: Connect,
    private_mqtt: Mosquitto,
    start_nest_server: StartNest,
    version: int,
) -> Doomed:
    """Give one whose mosquitto the test may end."""
    start_nest_server(**at(private_mqtt, protocolVersion=5))
    client = connect(MQTT, url=private_mqtt.url, protocol_version=version)
    return private_mqtt.kill, client


class TestWeCallNest(WeCallNest):
    """What every wire does, and wildcards, QoS and the properties of MQTT 5."""

    async def test_nobody_answers_an_unknown_pattern(self, nest: Caller) -> None:
        """Of QoS 0 the broker says nothing: the call ends in time."""
        with pytest.raises(MessageTimeout):
            await nest.send({"cmd": "none"}, 1, timeout=0.2)

    async def test_broker_says_that_nobody_listens(
        self, connect: Connect, nests_broker: Mosquitto
    ) -> None:
        """With MQTT 5 and QoS 1 the call ends at once."""
        asking = connect(MQTT, url=nests_broker.url, protocol_version=5)
        with pytest.raises(NoHandler, match="cmd"):
            await asking.send({"cmd": "none"}, 1, timeout=None, options={"qos": 1})

    async def test_nest_knows_the_topic_of_an_event(self, nest: Caller) -> None:
        """Also by an object pattern or a wildcard."""
        await nest.send("events.forget", 1)
        await nest.emit({"kind": "paid", "topic": "orders"}, 0)
        await nest.emit("audit/a/b", 7)
        events = await nest.send("events.wire", 2)
        found = {event["handler"]: event["wire"] for event in events}
        assert found["object"]["topic"] == '{"kind":"paid","topic":"orders"}'
        assert found["audit/#"]["topic"] == "audit/a/b"

    async def test_nest_answers_by_a_wildcard(self, nest: Caller) -> None:
        """Its handler knows the topic, and the answer comes there."""
        answer = await nest.send("user/made", 1)
        assert (answer["handler"], answer["data"]) == ("user/+", 1)
        assert answer["wire"]["topic"] == "user/made"

    async def test_nest_sees_our_properties(
        self, connect: Connect, nests_broker: Mosquitto
    ) -> None:
        """With MQTT 5 headers are user properties, and options what they are called."""
        service = {"user_properties": {"service": "orders"}, "protocol_version": 5}
        ours = connect(MQTT, url=nests_broker.url, **service)
        options = {"content_type": "application/json", "user_properties": {"a": "b"}}
        await ours.connect()
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
    async def test_nest_gets_our_qos(self, nest: Caller, qos: int) -> None:
        """A message has the QoS that it was given, as far as the handler's goes."""
        await nest.send("events.forget", 1)
        await nest.emit("audit/x", qos, options={"qos": qos})
        (event,) = await nest.send("events.wire", 1)
        assert (event["data"], event["wire"]["qos"]) == (qos, qos)


@pytest.fixture(scope="module")
def us(start_server: StartServer, version: int) -> Iterator[Way]:
    """Give Nest the way to our service."""
    server = start_server(Mosquitto, password="secret")
    options = {
        "url": server.url,
        "protocol_version": version,
        "max_frame_size": LARGE,
    }
    with closing(OurServer(default=entry(MQTT, [APP, LEVELS], **options))):
        yield at(server, protocolVersion=version)


class TestNestCallsUs(NestCallsUs):
    """What every wire does, and wildcards, QoS and the properties of MQTT 5."""

    @pytest.mark.parametrize("qos", [0, 1, 2])
    async def test_event_by_several_filters_runs_once(
        self, us: Way, nest_client: NestClient, qos: int
    ) -> None:
        """The broker makes a copy for each filter, and the handler runs once."""
        await nest_client.send(us, "events.forget", 1)
        record = {"qos": qos}
        await nest_client.emit(us, "audit/a", 1, record=record)
        await nest_client.emit(us, "audit/b/c", 2, record=record)
        events = (await nest_client.send(us, "events", 2)).value
        assert sorted(events, key=lambda event: event["data"]) == [
            {"handler": f"audit/a {qos}", "data": 1},
            {"handler": f"audit/b/c {qos}", "data": 2},
        ]

    async def test_we_answer_by_a_wildcard(
        self, us: Way, nest_client: NestClient
    ) -> None:
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

    async def test_we_see_the_properties_of_nest(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """With MQTT 5 user properties are headers."""
        client = {**us, "userProperties": {"service": "shop"}}
        record = {"properties": {"userProperties": {"tenant": "größe"}}}
        answer = await nest_client.send(client, "user/gone", 1, record=record)
        seen = {"service": "shop", "tenant": "größe"}
        expected = seen if us["protocolVersion"] == 5 else {}
        assert answer.value["headers"] == expected
