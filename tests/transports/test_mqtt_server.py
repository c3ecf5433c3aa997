"""The server's half of the MQTT wire, before a real broker and a broker's part."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
    InvalidMessage,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.mqtt import connection as connection_module
from django_microservices.transports.mqtt import failures as failures_module
from django_microservices.transports.mqtt import inlet as inlet_module
from django_microservices.transports.mqtt.packets import (
    DUP,
    Kind,
    Publish,
    acknowledged_publish,
    packet,
    publish_packet,
)
from django_microservices.transports.mqtt.properties import (
    property_bytes,
    read_properties,
    text_bytes,
)
from django_microservices.wire.messages import UNSET, Reply, new_id
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import linked, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]
VERSIONS: Any = (4, 5)
DEEP = b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"


@pytest.fixture
def root() -> str:
    """Give a level of topics that no other test has."""
    return new_id()


def hold(_: Delivery) -> None:
    """Answer nothing."""


def ending(*outcomes: tuple[str, str]) -> Service:
    """Make a service whose deliveries end so, one after the other; the rest well."""
    left = list(outcomes)

    def end(delivery: Delivery) -> None:
        delivery.end(*(left.pop(0) if left else ("ack", "")))

    return Service(end)


# --- requests and events ------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_request_is_answered_beside_its_topic(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """The answer is on ``<topic>/reply``, with the id in it (nest-wire.md A.6)."""
    async with (
        served(mqtt_server.url, f"{root}/+", protocol_version=version),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/a/reply")
        for id_ in (7, "8"):
            await peer.publish(f"{root}/a", {"pattern": "x", "data": [1], "id": id_})
        answers = await peer.came(2)
    assert [json.loads(answer.payload) for answer in answers] == [
        {"response": [1], "isDisposed": True, "id": id_} for id_ in (7, "8")
    ]
    assert {(answer.qos, answer.retain) for answer in answers} == {(0, False)}


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"pattern":"x","data":{"a":1}}', {"a": 1}),
        (b'{"temperature":21.5}', {"temperature": 21.5}),
        (b"21.5", 21.5),
        (b"warm", "warm"),
        (b'{"id":7,"a":1}', {"id": 7, "a": 1}),
    ],
)
async def test_event(mqtt_server: Mosquitto, root: str, body: bytes, data: Any) -> None:
    """Nest's packets are events, and so is whatever a sensor says."""
    async with served(mqtt_server.url, root) as server, Peer(mqtt_server.url) as peer:
        await peer.publish(root, body)
        (delivery,) = await server.service.came(1)
    assert (delivery.data, delivery.message.id) == (data, UNSET)
    assert delivery.message.pattern.route == root


async def test_what_is_no_message(mqtt_server: Mosquitto, root: str) -> None:
    """An empty body, which clears what was retained, and answers are no messages."""
    async with (
        served(mqtt_server.url, f"{root}/#") as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(f"{root}/a", b"")
        await peer.publish(f"{root}/a/reply", {"response": 1, "id": 7})
        await peer.publish(f"{root}/a/reply", {"err": "no", "isDisposed": True})
        await peer.publish(f"{root}/a/reply", {"temperature": 1})
        assert await server.came(1) == [{"temperature": 1}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_only_mqtt_knows(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """The context's wire is the packet."""
    properties = {"content_type": "a/b"} if version == 5 else {}
    async with (
        served(mqtt_server.url, (root, {"qos": 2}), protocol_version=version) as server,
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.publish(root, b"1", qos=1, properties=properties)
        (delivery,) = await server.service.came(1)
    wire: Publish = delivery.message.wire
    assert (wire.topic, wire.qos, wire.retain, wire.dup) == (root, 1, False, False)
    assert wire.payload == b"1"
    assert wire.properties.get("content_type") == properties.get("content_type")


@pytest.mark.parametrize("version", VERSIONS)
async def test_retained_message(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """Who subscribes without a group gets what was retained; who shares does not.

    MQTT 5 has it so (its section 4.8.2), mosquitto sends it to each new member.
    """
    options: Any = {"group": "g", "protocol_version": version}
    async with Peer(mqtt_server.url) as peer:
        await peer.publish(root, b"1", retain=True)
        async with served(mqtt_server.url, (root, {"queue": ""}), **options) as server:
            (delivery,) = await server.service.came(1)
            assert delivery.message.wire.retain
        async with served(mqtt_server.url, (root, {"qos": 1}), **options) as server:
            await peer.publish(root, b"2")
            await peer.publish(root, b"3", retain=True)
            assert await server.came(2) == [2, 3]
            assert not server.service.deliveries[1].message.wire.retain
        await peer.publish(root, b"", retain=True)


# --- headers and deadlines ----------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_headers(mqtt_server: Mosquitto, root: str, version: Any) -> None:
    """They are ``metadata`` in 3.1.1, and in 5 user properties too."""
    metadata = {"dm-timeout": "2000", "a": "1"}
    user = (("a", "2"), ("b", "3")) if version == 5 else ()
    async with (
        served(mqtt_server.url, root, protocol_version=version) as server,
        Peer(mqtt_server.url, version) as peer,
    ):
        properties = {"user_properties": user} if user else {}
        body = {"pattern": "x", "data": 1, "metadata": metadata}
        await peer.publish(root, body, properties=properties)
        (delivery,) = await server.service.came(1)
    assert delivery.message.headers == {**metadata, **dict(user)}
    assert delivery.message.timeout == 2.0


async def test_deadline_of_5(mqtt_server: Mosquitto, root: str) -> None:
    """There the time that is left may come as a user property alone."""
    async with (
        served(mqtt_server.url, root, protocol_version=5) as server,
        Peer(mqtt_server.url, 5) as peer,
    ):
        properties = {"user_properties": (("dm-timeout", "1500"),)}
        await peer.publish(root, b"1", properties=properties)
        (delivery,) = await server.service.came(1)
    assert delivery.message.timeout == 1.5


# --- filters ------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_groups_get_a_copy_each_and_share_it(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """Of an event each service gets one copy, and its processes share them."""
    services = {name: [Service(), Service()] for name in ("orders", "billing")}

    @asynccontextmanager
    async def replicas(name: str) -> AsyncIterator[None]:
        one, other = services[name]
        options: Any = {"group": name, "protocol_version": version}
        async with (
            served(mqtt_server.url, f"{root}/+", service=one, **options),
            served(mqtt_server.url, f"{root}/+", service=other, **options),
        ):
            yield

    async with replicas("orders"), replicas("billing"), Peer(mqtt_server.url) as peer:
        for number in range(20):
            await peer.publish(f"{root}/a", number)
        for one, other in services.values():
            await eventually(partial(_have, 20, one, other))
    for one, other in services.values():
        assert sorted(d.data for d in one.deliveries + other.deliveries) == [*range(20)]
        assert one.deliveries
        assert other.deliveries


def _have(count: int, *services: Service) -> bool:
    return sum(len(service.deliveries) for service in services) == count


async def test_without_a_group_everybody_gets_everything(
    mqtt_server: Mosquitto, root: str
) -> None:
    """Nest's arrangement."""
    async with (
        served(mqtt_server.url, root, group="") as one,
        served(mqtt_server.url, root, group="") as other,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        assert (await one.came(1), await other.came(1)) == ([1], [1])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", ["", "orders"])
async def test_overlapping_filters(
    mqtt_server: Mosquitto, root: str, version: Any, group: str
) -> None:
    """Each copy is known by its filter; where one filter matches nothing is said."""
    patterns = [f"{root}/a", f"{root}/+", f"{root}/#", f"{root}/b/c"]
    async with (
        served(
            mqtt_server.url, *patterns, group=group, protocol_version=version
        ) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(f"{root}/a", 1)
        await server.came(3)
        await peer.publish(f"{root}/x/y", 2)
        deliveries = await server.service.came(4)
    found = [delivery.message.subscription for delivery in deliveries]
    assert sorted(one.pattern.route for one in found[:3] if one) == sorted(patterns[:3])
    assert found[3] is None


@pytest.mark.parametrize(("version", "connections"), [(4, 3), (5, 1)])
async def test_connections_of_overlapping_filters(
    mqtt_server: Mosquitto, root: str, version: Any, connections: int
) -> None:
    """Only 3.1.1 needs one more for each filter that overlaps."""
    patterns = [f"{root}/a", f"{root}/+", f"{root}/#", "c", "d/#"]
    async with served(
        mqtt_server.url, *patterns, group="g", protocol_version=version
    ) as server:
        assert len(server.intake.driver) == connections


async def test_broker_without_subscription_identifiers(free_port: Ports) -> None:
    """It is treated like one of 3.1.1, and never sent one."""
    heard: list[tuple[bytes, bytes]] = []

    async def play(client: Client) -> None:
        connect = await client.greet({"subscription_identifier_available": 0})
        one = await client.hear(Kind.SUBSCRIBE)
        heard.append((connect.body[-10:], one.body[2:]))
        client.say(packet(0x90, one.packet_id, b"\0", b"\0"))
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, "a", "+", protocol_version=5, client_id="me"),
    ):
        assert sorted(body for _, body in heard) == [
            b"\x00\x00\x01+\x00",
            b"\x00\x00\x01a\x00",
        ]
        assert sorted(name[-2:] for name, _ in heard) == [b"-2", b"me"]


def identified(topic: str, *identifiers: int) -> bytes:
    """Write an event of MQTT 5 that names what brought it."""
    properties = property_bytes({"subscription_identifier": identifiers})
    return publish_packet(text_bytes(topic) + properties, b"1")


async def test_copies_of_5(free_port: Ports) -> None:
    """One copy for several filters runs all; one of a filter that is past none."""
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet({})
        identifiers = {}
        for _ in range(2):
            one = await client.hear(Kind.SUBSCRIBE)
            found, end = read_properties(
                one.body, 2, len(one.body), frozenset(("subscription_identifier",))
            )
            text = one.body[end + 2 : -1].decode()
            identifiers[text] = found["subscription_identifier"][0]
            client.say(packet(0x90, one.packet_id, b"\0", b"\0"))
        await go_on.wait()
        client.say(
            identified("a", *identifiers.values()),
            identified("a", identifiers["+"]),
            identified("a", 999),
            identified("b/c", 999),
            publish_packet(text_bytes("a") + b"\0", b"1"),
        )
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, "a", "+", protocol_version=5) as server,
    ):
        go_on.set()
        deliveries = await server.service.came(4)
    found = [
        (
            d.message.pattern.route,
            d.message.subscription and d.message.subscription.pattern.route,
        )
        for d in deliveries
    ]
    assert found == [("a", None), ("a", "+"), ("b/c", None), ("a", None)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_kept_session_has_the_filters_of_today(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """A filter that moves to another connection is no more on the first one."""
    options: Any = {
        "protocol_version": version,
        "client_id": root,
        "clean": False,
        "group": "g",
    }
    one, other = f"{root}/a", f"{root}/+"
    async with served(mqtt_server.url, (other, {"qos": 1}), **options):
        pass
    async with (
        served(
            mqtt_server.url, (one, {"qos": 1}), (other, {"qos": 1}), **options
        ) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(one, 1)
        await peer.publish(f"{root}/z", 2)
        assert sorted(await server.came(3)) == [1, 1, 2]


async def test_pattern_that_is_no_filter() -> None:
    """It ends start-up, before anything is sent."""
    with pytest.raises(TransportRefused, match="'a/#/b' is not a topic filter"):
        await served("mqtt://127.0.0.1:1", "a/#/b").__aenter__()


@pytest.mark.parametrize(
    ("version", "code", "kind", "says"),
    [
        (4, 0x80, TransportRefused, "unspecified error"),
        (5, 0x87, TransportRefused, "not authorized"),
        (5, 0x9E, TransportRefused, "shared subscriptions are not supported"),
        (5, 0x97, NotConnected, "quota exceeded"),
    ],
)
async def test_refused_filter(
    free_port: Ports, version: Any, code: int, kind: type[Exception], says: str
) -> None:
    """A server that would be deaf does not start, and says to what."""

    async def refuse(client: Client) -> None:
        await client.greet({} if version == 5 else None)
        one = await client.hear(Kind.SUBSCRIBE)
        properties = b"\0" if version == 5 else b""
        client.say(packet(0x90, one.packet_id, properties, bytes((code,))))
        await client.stay()

    async with Broker(free_port(), refuse) as broker:
        with pytest.raises(kind, match=rf"subscription to \$share/g/a: {says}"):
            await served(
                broker.url, "a", group="g", protocol_version=version
            ).__aenter__()


async def test_less_than_was_asked_for(
    free_port: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that grants a lower QoS is named in the log."""

    async def grant(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1)
        await client.stay()

    async with (
        Broker(free_port(), grant) as broker,
        served(broker.url, ("a", {"qos": 1})),
    ):
        assert "gives a with QoS 0, not 1" in caplog.text


async def test_server_is_ready_when_all_is_subscribed(free_port: Ports) -> None:
    """Before the last SUBACK the block is not entered."""
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1)
        last = await client.hear(Kind.SUBSCRIBE)
        asked.set()
        await go_on.wait()
        client.say(packet(0x90, last.packet_id, b"\0"))
        await client.stay()

    async with Broker(free_port(), play) as broker:
        block = served(broker.url, "a", "b")
        entering = asyncio.ensure_future(block.__aenter__())
        await asyncio.wait_for(asked.wait(), 10)
        assert not entering.done()
        go_on.set()
        await asyncio.wait_for(entering, 10)
        await block.__aexit__(None, None, None)


async def test_start_that_is_given_up(free_port: Ports) -> None:
    """It ends at once, whatever the broker still owes."""
    asked = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await client.hear(Kind.SUBSCRIBE)
        asked.set()
        await client.stay()

    async with Broker(free_port(), play) as broker:
        entering = asyncio.ensure_future(served(broker.url, "a").__aenter__())
        await asyncio.wait_for(asked.wait(), 10)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering


async def test_subscribe_options(free_port: Ports) -> None:
    """Those of MQTT 5 stand in each SUBSCRIBE; a shared one has no ``nl``."""
    heard: list[int] = []

    async def play(client: Client) -> None:
        await client.greet({})
        for _ in range(3):
            one = await client.hear(Kind.SUBSCRIBE)
            heard.append(one.body[-1])
            client.say(packet(0x90, one.packet_id, b"\0\2"))
        await client.stay()

    options: Any = {"qos": 1, "nl": True, "rap": True, "rh": 2}
    async with (
        Broker(free_port(), play) as broker,
        served(
            broker.url,
            "a",
            ("b", {"qos": 2}),
            "$share/g/c",
            protocol_version=5,
            subscribe_options=options,
        ),
    ):
        assert heard == [0b101101, 0b101110, 0b101001]


# --- acknowledgement ----------------------------------------------------------------

QUICK: Any = {"redelivery_delay": 0.0, "max_deliveries": 3, "group": "g"}


@pytest.mark.parametrize("qos", [1, 2])
async def test_message_is_acknowledged_when_it_is_done(
    free_port: Ports, qos: int
) -> None:
    """Not before its handler has ended, and if it comes twice meanwhile, it is one."""
    order: list[str] = []
    ended = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1, qos)
        for flags in (qos << 1, qos << 1 | DUP):
            client.say(acknowledged_publish(flags, b"\0\1a", 5, b"", b"1"))
        await client.hear(Kind.PUBACK if qos == 1 else Kind.PUBREC)
        order.append("acknowledged")
        if qos == 2:
            client.say(b"\x62\x02\x00\x05")
            await client.hear(Kind.PUBCOMP)
        ended.set()
        await client.stay()

    service = Service(hold)
    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", {"qos": qos}), service=service),
    ):
        (delivery,) = await service.came(1)
        order.append("done")
        delivery.end()
        await asyncio.wait_for(ended.wait(), 10)
    assert order == ["done", "acknowledged"]
    assert len(service.deliveries) == 1


async def test_first_verdict_counts(mqtt_server: Mosquitto, root: str) -> None:
    """What the handler told the broker stands against the outcome."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, (root, {"qos": 1}), service=service, **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        (delivery,) = await service.came(1)
        assert delivery.message.settle is not None
        delivery.message.settle("ack", None, "")
        delivery.end("retry", "RuntimeError")
        await peer.publish(root, 2)
        assert [d.data for d in await service.came(2)] == [1, 2]


async def test_qos_0_has_nothing_to_settle(mqtt_server: Mosquitto, root: str) -> None:
    """Nobody waits for its outcome, and it is not tried again."""
    service = ending(("retry", "RuntimeError"))
    async with (
        served(mqtt_server.url, root, service=service, **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        (delivery,) = await service.came(1)
        assert delivery.message.settle is None
        await peer.publish(root, 2)
        assert [d.data for d in await service.came(2)] == [1, 2]


async def test_failed_event_is_tried_again(mqtt_server: Mosquitto, root: str) -> None:
    """The same message, as often as it may be, and others are not held up."""
    service = ending(("retry", "A"), ("retry", "B"))
    async with (
        served(mqtt_server.url, (root, {"qos": 1}), service=service, **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, {"pattern": "p", "data": 1, "metadata": {"a": "b"}})
        deliveries = await service.came(3)
    assert [d.data for d in deliveries] == [1, 1, 1]
    assert [d.message.headers for d in deliveries] == [{"a": "b"}] * 3
    assert len({id(d.message) for d in deliveries}) == 3


async def test_event_rests_as_long_as_its_handler_says(
    mqtt_server: Mosquitto, root: str
) -> None:
    """``nack(delay)`` stands over the policy."""
    times: list[float] = []

    def judge(delivery: Delivery) -> None:
        times.append(asyncio.get_running_loop().time())
        delivery.end("ack" if len(times) > 1 else "retry", "", 0.2)

    options = {**QUICK, "redelivery_delay": 60.0}
    async with (
        served(
            mqtt_server.url, (root, {"qos": 1}), service=Service(judge), **options
        ) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        await server.came(2)
        await eventually(lambda: len(times) == 2)
    assert times[1] - times[0] > 0.19


@pytest.mark.parametrize("version", VERSIONS)
async def test_dead_letter(mqtt_server: Mosquitto, root: str, version: Any) -> None:
    """What fails too often is published, says why, and is done with."""
    service = ending(*[("retry", "ValueError: no\nsuch")] * 3)
    async with (
        served(
            mqtt_server.url,
            (root, {"qos": 1}),
            service=service,
            protocol_version=version,
            **QUICK,
        ),
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}", qos=1)
        body = {"pattern": {"cmd": 1}, "data": [1], "metadata": {"a": "b"}, "id": 7}
        await peer.publish(root, body)
        (letter,) = await peer.came(1)
    packet_ = json.loads(letter.payload)
    headers = packet_.get("metadata") or dict(letter.properties["user_properties"])
    reason = r"ValueError: no\nsuch"
    assert headers == {"a": "b", "dm-reason": reason, "dm-deliveries": "3"}
    assert (packet_["data"], packet_["pattern"], "id" in packet_) == ([1], root, False)
    assert letter.qos == 1
    assert len(service.deliveries) == 3


async def test_rejected_event_is_a_dead_letter_at_once(
    mqtt_server: Mosquitto, root: str
) -> None:
    """It is not tried again."""
    service = ending(("dead", "no such order"))
    async with (
        served(mqtt_server.url, (root, {"qos": 1}), service=service, **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        await peer.publish(root, 1)
        (letter,) = await peer.bodies(1)
    assert letter["metadata"] == {"dm-reason": "no such order", "dm-deliveries": "1"}
    assert letter["data"] == 1


async def test_dead_letters_do_not_come_back(mqtt_server: Mosquitto, root: str) -> None:
    """A wildcard brings them, and they run nothing: they would never end."""
    service = ending(("dead", "no"))
    options = {**QUICK, "group": root, "dead_letter_topic": f"{root}/dead"}
    async with (
        served(mqtt_server.url, (f"{root}/#", {"qos": 1}), service=service, **options),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/dead/#")
        await peer.publish(f"{root}/a", 1)
        await peer.came(1)
        await peer.publish(f"{root}/b", 2)
        await service.came(2)
    assert [d.data for d in service.deliveries] == [1, 2]


async def test_handler_of_dead_letters(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks for them by name gets them; one that fails again is only logged."""
    service = ending(("dead", "no"), ("dead", "again"))
    options = {**QUICK, "dead_letter_topic": f"{root}/dead"}
    patterns = [(f"{root}/dead/#", {"qos": 1}), (f"{root}/a", {"qos": 1})]
    async with (
        served(mqtt_server.url, *patterns, service=service, **options),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(f"{root}/a", 1)
        deliveries = await service.came(2)
        await peer.publish(f"{root}/a", 2)
        await service.came(3)
    assert (deliveries[1].message.headers or {})["dm-reason"] == "no"
    assert f"A dead letter failed again: {root}/dead/{root}/a: again" in caplog.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (DEEP, "it could not be read"),
        (b'"' + b"x" * 2000 + b'"', "2045 bytes are too many"),
    ],
)
async def test_unreadable_event_is_a_dead_letter(
    mqtt_server: Mosquitto, root: str, body: bytes, reason: str
) -> None:
    """It would come again for ever; what could be read of it is kept."""
    async with (
        served(
            mqtt_server.url, (root, {"qos": 1}), max_frame_size=1024 * 3 // 2, **QUICK
        ) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        await peer.publish(root, body)
        (letter,) = await peer.bodies(1)
        await peer.publish(root, 2)
        assert await server.came(1) == [2]
    found = letter["metadata"]["dm-reason"]
    assert found.split(" ", 1)[1] == reason.split(" ", 1)[1]
    assert letter.get("data") == (DEEP.decode() if body is DEEP else None)


async def test_unreadable_event_of_qos_0(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for its outcome: it is logged, and the next one is served."""
    async with (
        served(mqtt_server.url, root, max_frame_size=1024) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, DEEP)
        await peer.publish(root, b'"' + b"x" * 2000 + b'"')
        await peer.publish(root, 1)
        assert await server.came(1) == [1]
    assert "it could not be read" in caplog.text
    assert "bytes are too many" in caplog.text


async def test_unreadable_request_is_answered(
    mqtt_server: Mosquitto, root: str
) -> None:
    """Its caller gets an error, and the broker its acknowledgement."""
    deep = b'{"data":' + b"[" * 100 + b"]" * 100 + b',"id":"7"}'
    async with (
        served(mqtt_server.url, (root, {"qos": 1}), **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/reply")
        await peer.publish(root, deep)
        (answer,) = await peer.bodies(1)
    assert answer["err"]["message"] == "The message could not be read."
    assert answer["id"] == "7"


async def test_unreadable_request_on_the_longest_topic(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no room for its answer's topic: it is logged, and nothing breaks."""
    deep = b'{"data":' + b"[" * 100 + b"]" * 100 + b',"id":"7"}'
    name = f"{root}/" + "x" * (65_535 - len(root) - 1)
    async with (
        served(mqtt_server.url, f"{root}/+") as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(name, deep)
        await peer.publish(f"{root}/a", 1)
        assert await server.came(1) == [1]
    assert "No answer to" in caplog.text


async def test_letter_that_is_too_large(mqtt_server: Mosquitto, root: str) -> None:
    """With its reason it would be over the limit: the payload stays behind."""
    service = ending(("dead", "x" * 200))
    async with (
        served(
            mqtt_server.url,
            (root, {"qos": 1}),
            service=service,
            max_frame_size=1024,
            **QUICK,
        ),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        await peer.publish(root, "y" * 900)
        (letter,) = await peer.bodies(1)
    assert "data" not in letter
    assert letter["metadata"]["dm-reason"] == "x" * 200


@pytest.mark.parametrize("size", [65_530, 65_000])
async def test_letter_of_a_long_topic(
    mqtt_server: Mosquitto, root: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where its own would be too long it stands above all; else it is only logged."""
    name = f"{root}/" + "x" * (size - len(root) - 1)
    most = 1024 * 1024 if size > 65_100 else 1024 * 64
    service = ending(("dead", "no"))
    options = {**QUICK, "dead_letter_topic": f"{root}-dead", "max_frame_size": most}
    async with (
        served(mqtt_server.url, (f"{root}/+", {"qos": 1}), service=service, **options),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}-dead/#")
        await peer.publish(name, 1)
        if size > 65_100:
            (letter,) = await peer.came(1)
            assert letter.topic == f"{root}-dead"
        else:
            await eventually(lambda: "cannot be published" in caplog.text)


async def test_letter_that_is_refused(
    free_port: Ports,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is published again, and the message is not acknowledged before."""
    monkeypatch.setattr(failures_module, "LONGEST_DELAY", 0.0)
    heard: list[Kind] = []
    ended = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet({})
        one = await client.hear(Kind.SUBSCRIBE)
        client.say(packet(0x90, one.packet_id, b"\0\1"))
        client.say(acknowledged_publish(2, b"\0\1a", 5, b"\0", b"1"))
        for code in (0x87, 0):
            letter = await client.hear(Kind.PUBLISH)
            start = 2 + int.from_bytes(letter.body[:2])
            id_ = letter.body[start : start + 2]
            client.say(packet(0x40, id_, bytes((code,))))
            heard.append(letter.kind)
        heard.append((await client.hear(Kind.PUBACK)).kind)
        ended.set()
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        served(
            broker.url,
            ("a", {"qos": 1}),
            service=ending(("dead", "no")),
            protocol_version=5,
        ),
    ):
        await asyncio.wait_for(ended.wait(), 10)
    assert heard == [Kind.PUBLISH, Kind.PUBLISH, Kind.PUBACK]
    assert "not authorized" in caplog.text


# --- room ---------------------------------------------------------------------------


async def test_no_more_than_the_limit_is_in_flight(
    mqtt_server: Mosquitto, root: str
) -> None:
    """The rest waits, with the broker if need be, and all of it comes in order."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, root, service=service, limit=2) as server,
        Peer(mqtt_server.url) as peer,
    ):
        for number in range(10):
            await peer.publish(root, number)
        connection = server.intake.driver[0]
        await eventually(lambda: connection.deaf)
        assert len(service.deliveries) == 2
        for number in range(10):
            deliveries = await service.came(number + 1)
            deliveries[number].end()
        await eventually(lambda: not connection.deaf)
    assert [d.data for d in service.deliveries] == [*range(10)]


# --- answers ------------------------------------------------------------------------


async def test_answers_of_qos_1(mqtt_server: Mosquitto, root: str) -> None:
    """By option they are confirmed, and a stream waits for that."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, root, service=service, reply_qos=1),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/reply", qos=1)
        await peer.publish(root, {"pattern": "x", "data": 1, "id": 7})
        (delivery,) = await service.came(1)
        waiting = delivery.respond(Reply(7, b"1", last=False))
        assert await asyncio.wait_for(waiting, 10) == 0
        (answer,) = await peer.came(1)
    assert answer.qos == 1


async def test_answer_that_nests_too_deeply(mqtt_server: Mosquitto, root: str) -> None:
    """It is refused here, since no peer could read it."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, root, service=service),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, {"pattern": "x", "data": 1, "id": 7})
        (delivery,) = await service.came(1)
        with pytest.raises(InvalidMessage, match="too deeply"):
            delivery.respond(Reply(7, b"[" * 100 + b"]" * 100))


async def test_answer_after_the_end(mqtt_server: Mosquitto, root: str) -> None:
    """A connection that is gone takes no answer, and that is nobody's fault."""
    service = Service(hold)
    async with Peer(mqtt_server.url) as peer:
        async with served(mqtt_server.url, (root, {"qos": 1}), service=service):
            await peer.publish(root, {"pattern": "x", "data": 1, "id": 7})
            (delivery,) = await service.came(1)
        assert delivery.respond(Reply(7, b"1")) is None
        delivery.end()


async def test_topics_are_not_remembered_without_end(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers choose their names."""
    monkeypatch.setattr(inlet_module, "_MOST_KNOWN", 2)
    async with (
        served(mqtt_server.url, f"{root}/+") as server,
        Peer(mqtt_server.url) as peer,
    ):
        for number in range(5):
            await peer.publish(f"{root}/{number}", number)
        assert await server.came(5) == [*range(5)]
        assert len(server.intake._inlets[0]._topics) <= 2


# --- the end ------------------------------------------------------------------------


async def test_lost_connection_ends_the_intake(free_port: Ports) -> None:
    """Whichever of several connections it is."""
    go_on = asyncio.Event()
    clients: list[Client] = []

    async def play(client: Client) -> None:
        clients.append(client)
        await client.greet()
        await client.take_subscriptions(1)
        await go_on.wait()
        if client is not clients[1]:
            await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, "a", "+") as server,
    ):
        go_on.set()
        reason = await asyncio.wait_for(server.intake.closed, 10)
    assert isinstance(reason, ConnectionLost)
    assert "the broker closed the connection" in str(reason)


async def test_paused_server_answers_what_it_accepted(
    mqtt_server: Mosquitto, root: str
) -> None:
    """It takes nothing new, and returns when everything is done."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, root, service=service) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        (delivery,) = await service.came(1)
        pausing = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.failures.is_leaving)
        await peer.publish(root, 2)
        assert not pausing.done()
        delivery.end()
        await asyncio.wait_for(pausing, 10)
    assert [d.data for d in service.deliveries] == [1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pauses", [True, False])
async def test_clean_session_buries_what_would_be_forgotten(
    mqtt_server: Mosquitto,
    root: str,
    version: Any,
    pauses: bool,  # noqa: FBT001
) -> None:
    """What rests, or is given back, when a server stops: its broker keeps nothing."""
    service = ending(("retry", "RuntimeError"))
    options = {**QUICK, "redelivery_delay": 600.0, "protocol_version": version}
    async with Peer(mqtt_server.url, version) as peer:
        await peer.subscribe(f"g/dead/{root}")
        async with served(
            mqtt_server.url, (root, {"qos": 1}), service=service, **options
        ) as server:
            await peer.publish(root, 1)
            await service.came(1)
            service.answer = hold
            await peer.publish(root, 2)
            (_, held) = await service.came(2)
            await eventually(lambda: server.intake.failures._resting)
            if pauses:
                pausing = asyncio.ensure_future(server.intake.pause())
                await eventually(lambda: server.intake.failures.is_leaving)
                held.end("retry", "cancelled")
                await asyncio.wait_for(pausing, 10)
        letters = await peer.came(2 if pauses else 1)
    told = [letter.payload + repr(letter.properties).encode() for letter in letters]
    assert all(b"the server stopped" in text for text in told)


@pytest.mark.parametrize("version", VERSIONS)
async def test_kept_session_brings_back_what_was_not_done(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """What rests, what is given back, and what came meanwhile: all of it comes."""
    options: Any = {
        "redelivery_delay": 600.0,
        "client_id": root,
        "clean": False,
        "protocol_version": version,
    }
    pattern = (root, {"qos": 1})
    service = ending(("retry", "RuntimeError"))
    async with Peer(mqtt_server.url) as peer:
        async with served(
            mqtt_server.url, pattern, service=service, **options
        ) as server:
            await peer.publish(root, 1)
            await service.came(1)
            service.answer = hold
            await peer.publish(root, 2)
            (_, held) = await service.came(2)
            pausing = asyncio.ensure_future(server.intake.pause())
            await eventually(lambda: server.intake.is_leaving)
            await peer.publish(root, 3)
            held.end("retry", "cancelled")
            await asyncio.wait_for(pausing, 10)
        await peer.publish(root, 4)
        async with served(mqtt_server.url, pattern, **options) as server:
            assert sorted(await server.came(4)) == [1, 2, 3, 4]


@pytest.mark.parametrize("qos", [0, 1])
async def test_nothing_is_begun_after_the_block(
    mqtt_server: Mosquitto, root: str, qos: int
) -> None:
    """What waited for room is forgotten with it; of QoS 1 it is buried."""
    service = Service(hold)
    async with Peer(mqtt_server.url) as peer:
        await peer.subscribe(f"g/dead/{root}")
        async with served(
            mqtt_server.url, (root, {"qos": qos}), service=service, limit=1, **QUICK
        ) as server:
            for number in range(3):
                await peer.publish(root, number)
            await eventually(lambda: server.intake.room.waiting)
        service.deliveries[0].end()
        letters = await peer.bodies(qos)
    assert len(service.deliveries) == 1
    assert [letter["data"] for letter in letters] == [1] * qos


async def test_verdict_after_the_end(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that ends late has nobody to tell: what is lost by that is logged."""
    service = Service(hold)
    async with Peer(mqtt_server.url) as peer:
        async with served(
            mqtt_server.url, (root, {"qos": 1}), service=service, **QUICK
        ):
            for number in range(3):
                await peer.publish(root, number)
            deliveries = await service.came(3)
        for delivery, outcome in zip(deliveries, ("ack", "retry", "dead"), strict=True):
            delivery.end(outcome)
    assert caplog.text.count(f"It is lost: {root}") == 2


# --- a broker that hangs ------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after the broker often."""
    monkeypatch.setattr(connection_module, "INTERVAL", 0.05)
    monkeypatch.setattr(connection_module, "PATIENCE", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_mute_broker_is_found(free_port: Ports) -> None:
    """One that answers no PINGREQ is gone, on both ends."""

    async def fall_silent(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1)
        for _ in range(3):
            await client.hear(Kind.PINGREQ)
            client.say(b"\xd0\x00")
        await client.stay()

    async with (
        Broker(free_port(), fall_silent) as broker,
        served(broker.url, "a") as server,
    ):
        reason = await asyncio.wait_for(server.intake.closed, 10)
    assert "the broker was silent" in str(reason)


@pytest.mark.usefixtures("impatient")
async def test_busy_server_is_not_mistaken(mqtt_server: Mosquitto, root: str) -> None:
    """While we do not read, silence says nothing of the broker."""
    service = Service(hold)
    async with (
        served(mqtt_server.url, root, service=service, limit=1) as server,
        Peer(mqtt_server.url) as peer,
    ):
        for number in range(3):
            await peer.publish(root, number)
        connection = server.intake.driver[0]
        await eventually(lambda: connection.deaf)
        before = connection._asked_at
        await eventually(lambda: connection._asked_at > before + 0.3)
        assert not connection.lost
        service.answer = Delivery.answer
        for delivery in service.deliveries:
            delivery.end()
        await service.came(3)


@pytest.mark.parametrize(
    ("keepalive", "properties", "interval"),
    [(0.0, None, 4.0), (60.0, None, 4.0), (2.0, None, 1.0), (60.0, 3, 1.5)],
)
async def test_keepalive(
    free_port: Ports, keepalive: float, properties: int | None, interval: float
) -> None:
    """We ask often enough for the broker, and for ourselves."""

    async def play(client: Client) -> None:
        told = {} if properties is None else {"server_keep_alive": properties}
        await client.greet(told)
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, keepalive=keepalive, protocol_version=5) as calls,
    ):
        assert calls.link.connection._interval == interval  # type: ignore[attr-defined]
