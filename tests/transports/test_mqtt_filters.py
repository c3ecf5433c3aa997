"""What an MQTT server subscribes to, and which copies come, before a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from django_microservices.exceptions import (
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.mqtt.packets import (
    Kind,
    packet,
    publish_packet,
)
from django_microservices.transports.mqtt.properties import (
    property_bytes,
    read_properties,
    text_bytes,
)
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Service, eventually

Ports = Callable[[], int]


@VERSIONS
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


@VERSIONS
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


@VERSIONS
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
