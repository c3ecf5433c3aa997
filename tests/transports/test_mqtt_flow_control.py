"""The server's half of MQTT under pressure: start, drain, streams, and limits."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import ConnectionLost, TransportRefused
from django_microservices.transports.mqtt.packets import (
    Kind,
    packet,
    publish_packet,
)
from django_microservices.wire.messages import UNSET, Reply
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, Streams, hold, linked, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]
QOS_1: Any = {"qos": 1}


# --- start --------------------------------------------------------------------------


async def test_server_with_a_backlog_is_soon_ready(free_port: Ports) -> None:
    """Reading goes on until all is subscribed, however much comes before."""
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        subscribe = await client.hear(Kind.SUBSCRIBE)
        client.say(*[publish_packet(b"\0\1a", b"%d" % n, 0) for n in range(9)])
        await client.writer.drain()
        await go_on.wait()
        client.say(packet(0x90, subscribe.packet_id, b"\0"))
        await client.stay()

    service = Service(hold)
    async with Broker(free_port(), play) as broker:
        block = served(broker.url, "a", service=service, limit=2)
        entering = asyncio.ensure_future(block.__aenter__())
        await service.came(2)
        go_on.set()
        server = await asyncio.wait_for(entering, 10)
        assert server.intake.driver[0].deaf
        await block.__aexit__(None, None, None)


# --- drain --------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_paused_server_handles_what_the_broker_still_sends(
    mqtt_server: Mosquitto, root: str, version: Any, qos: int
) -> None:
    """After UNSUBACK comes what waited for room; nobody else would get it."""
    service, pattern = Service(hold), (root, {"qos": qos})
    options: Any = {"protocol_version": version, "group": "g"}
    async with (
        Peer(mqtt_server.url) as peer,
        served(mqtt_server.url, pattern, service=service, limit=5, **options) as server,
    ):
        for number in range(50):
            await peer.publish(root, number, qos=qos)
        await service.came(5)
        pausing = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.driver[0].asked._pending)
        service.answer = Delivery.answer
        for delivery in tuple(service.deliveries):
            delivery.end()
        await asyncio.wait_for(pausing, 10)
    assert sorted(delivery.data for delivery in service.deliveries) == [*range(50)]


async def test_paused_server_whose_connection_breaks(free_port: Ports) -> None:
    """It does not wait for what cannot come."""

    async def play(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1, 1)
        one = await client.hear(Kind.UNSUBSCRIBE)
        client.say(packet(0xB0, one.packet_id))
        await client.hear(Kind.PINGREQ)

    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", QOS_1)) as server,
    ):
        await asyncio.wait_for(server.intake.pause(), 10)
        assert server.intake.driver[0].lost
        await server.intake.driver[0].ping()


# --- streams ------------------------------------------------------------------------


@VERSIONS
async def test_confirmed_items_while_all_places_are_taken(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """Their confirms are read, though no messages are."""
    service, options = Service(hold), {"protocol_version": version, "reply_qos": 1}
    async with (
        served(mqtt_server.url, root, service=service, limit=1, **options) as server,
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.subscribe(f"{root}/reply")
        for number in range(5):
            await peer.publish(root, {"pattern": "x", "data": number, "id": number})
        (delivery,) = await service.came(1)
        await eventually(lambda: server.intake.driver[0].deaf)
        waiting = delivery.respond(Reply(0, b"1", last=False))
        assert await asyncio.wait_for(waiting, 10) == 0
        await peer.came(1)


async def test_item_that_is_lost_with_its_connection(
    mqtt_server: Mosquitto, root: str
) -> None:
    """Its stream is told, by the error of what it waits for."""
    service = Streams(hold)
    async with (
        served(mqtt_server.url, root, service=service, reply_qos=1) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, {"pattern": "x", "data": 1, "id": 1})
        (delivery,) = await service.came(1)
        speaker = server.intake.holdings.speaker
        assert speaker is not None
        waiting = delivery.respond(Reply(1, b"1", last=False))
        speaker.transport.abort()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, 10)
        assert server.intake.closed.done()


async def test_stream_that_nobody_reads(mqtt_server: Mosquitto, root: str) -> None:
    """With MQTT 5 and confirmed answers the broker says so, and it ends."""
    service, options = Streams(hold), {"protocol_version": 5, "reply_qos": 1}
    request = {"pattern": "x", "data": 1}
    async with served(mqtt_server.url, root, service=service, **options):
        async with Peer(mqtt_server.url, 5) as peer:
            await peer.subscribe(f"{root}/reply")
            for id_ in (1, 2):
                await peer.publish(root, {**request, "id": id_})
            one, other = await service.came(2)
            await one.respond(Reply(1, b"1", last=False))
            assert not one.cancelled.is_set()
        # Whoever unsubscribes is asked for, so that the broker has it.
        async with Peer(mqtt_server.url, 5) as peer:
            await peer.publish(root, {"pattern": "x", "data": 1})
            await service.came(3)
        await one.respond(Reply(1, b"1", last=False))
        await asyncio.wait_for(one.cancelled.wait(), 10)
        assert not other.cancelled.is_set()


async def test_stream_that_goes_on_for_too_long(
    mqtt_server: Mosquitto, root: str
) -> None:
    """Nobody may be reading: it is told, and it ends; what is done is forgotten."""
    service = Streams(hold)
    async with (
        served(mqtt_server.url, root, service=service, max_stream_age=0.05) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/reply")
        for id_ in (1, 2):
            await peer.publish(root, {"pattern": "x", "data": 1, "id": id_})
        one, other = await service.came(2)
        other.end()
        await asyncio.wait_for(one.cancelled.wait(), 10)
        (answer,) = await peer.bodies(1)
        assert not server.intake.holdings.streams._begun
    assert answer["err"]["message"] == "The stream went on for too long"
    assert answer["id"] == 1
    assert not other.cancelled.is_set()


async def test_event_that_a_stream_handles(mqtt_server: Mosquitto, root: str) -> None:
    """Nobody reads it, so that it may last, and keeps none that has a reader."""
    service = Streams(hold)
    async with (
        served(
            mqtt_server.url, (root, QOS_1), service=service, max_stream_age=0.05
        ) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.publish(root, 1)
        (event,) = await service.came(1)
        await peer.publish(root, {"pattern": "x", "data": 2, "id": 2}, qos=0)
        request = (await service.came(2))[1]
        await asyncio.wait_for(request.cancelled.wait(), 10)
        assert not event.cancelled.is_set()
        assert not server.intake.failures.is_leaving


async def test_stream_without_a_bound(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``None`` is for ever, and those that ended are forgotten all the same."""
    module = "django_microservices.transports.mqtt.streams._LOOKS"
    monkeypatch.setattr(module, 0.01)
    service = Streams(hold)
    async with (
        served(mqtt_server.url, root, service=service, max_stream_age=None) as server,
        Peer(mqtt_server.url) as peer,
    ):
        for id_ in (1, 2):
            await peer.publish(root, {"pattern": "x", "data": 1, "id": id_})
        one, other = await service.came(2)
        streams = server.intake.holdings.streams
        other.end()
        await eventually(lambda: len(streams._begun) == 1)
        assert not one.cancelled.is_set()


# --- what a broker has not ----------------------------------------------------------


def poor(**properties: int) -> Callable[[Client], Any]:
    """Return the part of a broker of MQTT 5 that has not all."""

    async def play(client: Client) -> None:
        await client.greet(properties)
        await client.stay()

    return play


@pytest.mark.parametrize(
    ("properties", "options", "says"),
    [
        ({"retain_available": 0}, {"retain": True}, "retain is not supported"),
        ({"retain_available": 0}, {"retain": True, "qos": 1}, "retain is not"),
        ({"maximum_qos": 1}, {"qos": 2}, "the QoS is not supported"),
        ({"maximum_qos": 0}, {"qos": 1}, "the QoS is not supported"),
    ],
)
async def test_message_that_would_end_the_connection(
    free_port: Ports, properties: Any, options: Any, says: str
) -> None:
    """It is refused here, and nobody else's calls are lost."""
    async with (
        Broker(free_port(), poor(**properties)) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        with pytest.raises(TransportRefused, match=says):
            calls.send("a", id_=UNSET, options=options)
        assert calls.send("a", id_=UNSET) is None
        assert not calls.link.closed.done()


@pytest.mark.parametrize(
    ("properties", "pattern", "options", "says"),
    [
        ({"shared_subscription_available": 0}, "a", {"group": "g"}, "shared"),
        ({"wildcard_subscription_available": 0}, "a/+", {}, "wildcard"),
        ({"maximum_qos": 0}, "a", {"reply_qos": 1}, "the QoS is not supported"),
    ],
)
async def test_server_that_would_lose_its_connection(
    free_port: Ports, properties: Any, pattern: str, options: Any, says: str
) -> None:
    """It does not start, and says why."""
    async with Broker(free_port(), poor(**properties)) as broker:
        with pytest.raises(TransportRefused, match=says):
            await served(
                broker.url, pattern, protocol_version=5, **options
            ).__aenter__()


async def test_delay_is_said_to_be_none(
    mqtt_server: Mosquitto,
    root: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same call works on every wire; where it means nothing that is said once."""
    monkeypatch.setattr("django_microservices.transports.mqtt.link._MOST_KNOWN", 1)
    async with (
        served(mqtt_server.url, f"{root}/+") as server,
        linked(mqtt_server.url) as calls,
    ):
        for name in ("a", "a", "b"):
            calls.send(f"{root}/{name}", id_=UNSET, options={"delay": 60})
        calls.send(f"{root}/c", id_=UNSET, options={"delay": 0})
        assert await server.came(4) == [1] * 4
    assert caplog.text.count("MQTT delays nothing") == 2
