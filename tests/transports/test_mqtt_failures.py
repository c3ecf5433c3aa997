"""What failed over MQTT: it rests, holds nobody up, and outlives its connection."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.transports import MQTTTransport
from django_microservices.transports.mqtt import failures as failures_module
from django_microservices.transports.mqtt import holdings as holdings_module
from django_microservices.transports.mqtt.packets import (
    Kind,
    acknowledged_publish,
    packet,
)
from django_microservices.transports.redelivery import GIVEN_BACK
from django_microservices.wire.messages import Reply
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, Served, Streams, hold, served, served_by
from .mqtt_peer import Broker, Client, Heard, Peer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]
EVENT = acknowledged_publish(2, b"\0\1a", 5, b"", b"1")
QOS_1: Any = {"qos": 1}


def failing(rest: float) -> Callable[[Delivery], None]:
    """Return what fails each event, which is to rest for so long."""
    return lambda delivery: delivery.end("retry", "RuntimeError", rest)


async def cut(server: Served) -> None:
    """Have its connections break."""
    for connection in server.intake.driver:
        connection.transport.abort()
    await asyncio.wait_for(asyncio.shield(server.intake.closed), 10)


async def cut_with_one_that_rests(server: Served, peer: Peer, root: str) -> Delivery:
    """Have its connections break while one event rests and one runs; return that."""
    await peer.publish(root, 1)
    await eventually(lambda: len(server.intake.failures))
    server.service.answer = hold
    await peer.publish(root, 2)
    held: Delivery = (await server.service.came(2))[1]
    await cut(server)
    return held


def confirm(client: Client, letter: Heard) -> None:
    """Say that a dead letter was taken."""
    start = 2 + int.from_bytes(letter.body[:2])
    client.say(packet(0x40, letter.body[start : start + 2]))


# --- others are not held up ---------------------------------------------------------


async def test_event_that_rests_is_acknowledged_in_a_clean_session(
    free_port: Ports,
) -> None:
    """The broker protects nothing, and would send no others; a stop buries it."""
    heard: list[bytes] = []
    acknowledged = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await client.take_subscriptions(1, 1)
        client.say(EVENT)
        await client.hear(Kind.PUBACK)
        acknowledged.set()
        letter = await client.hear(Kind.PUBLISH)
        heard.append(letter.body)
        confirm(client, letter)
        await client.stay()

    service = Service(failing(600.0))
    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", QOS_1), service=service) as server,
    ):
        await asyncio.wait_for(acknowledged.wait(), 10)
        assert len(server.intake.failures) == 1
    assert b"the server stopped (RuntimeError)" in heard[0]


async def test_no_more_rest_than_memory_has_room_for(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is a dead letter, and says why."""
    monkeypatch.setattr(failures_module, "MOST_RESTING", 1)
    service = Service(failing(600.0))
    async with (
        served(mqtt_server.url, (root, QOS_1), service=service, group="g"),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        for number in range(2):
            await peer.publish(root, number)
        (letter,) = await peer.bodies(1)
    assert letter["metadata"]["dm-reason"] == "1 rest already (RuntimeError)"
    assert letter["data"] == 1


@VERSIONS
async def test_kept_session_is_not_held_up_for_long(
    mqtt_server: Mosquitto, root: str, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rest unacknowledged, of which the broker sends a limited number."""
    monkeypatch.setattr(holdings_module, "RESTING", 10)
    options: Any = {"client_id": root, "clean": False, "protocol_version": version}
    service = Service(failing(600.0))
    async with (
        served(
            mqtt_server.url, (root, QOS_1), service=service, limit=12, **options
        ) as server,
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.subscribe(f"dead/{root}", qos=1)
        for number in range(25):
            await peer.publish(root, number)
        letters = await peer.came(15)
        service.answer = Delivery.answer
        await peer.publish(root, "another")
        await service.came(26)
        assert len(server.intake.failures) == 10
    assert all(b"10 rest already (RuntimeError)" in _told(one) for one in letters)


def _told(letter: Any) -> bytes:
    return bytes(letter.payload) + repr(letter.properties).encode()


async def test_short_rest_of_many(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that fails them all for a moment buries none in a kept session."""
    monkeypatch.setattr(holdings_module, "_RESTING_3", 0)
    failed: set[int] = set()

    def fail_once(delivery: Delivery) -> None:
        if delivery.data in failed:
            delivery.end()
        failed.add(delivery.data)
        delivery.end("retry", "RuntimeError", 0.01)

    service = Service(fail_once)
    async with (
        served(
            mqtt_server.url, (root, QOS_1), service=service, client_id=root, clean=False
        ),
        Peer(mqtt_server.url) as peer,
    ):
        for number in range(30):
            await peer.publish(root, number)
        deliveries = await service.came(60)
    assert sorted(d.data for d in deliveries) == sorted([*range(30)] * 2)


# --- connections that are lost ------------------------------------------------------


@VERSIONS
async def test_failed_events_outlive_their_connection(
    mqtt_server: Mosquitto,
    root: str,
    version: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What rests, and what fails later, is tried again though the broker forgot it."""
    transport = MQTTTransport(
        url=mqtt_server.url, protocol_version=version, redelivery_delay=0.0
    )
    service = Service(failing(0.05))
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, (root, QOS_1), service=service) as server:
            held = await cut_with_one_that_rests(server, peer, root)
        assert "The broker forgets 2 unfinished messages" in caplog.text
        service.answer = Delivery.answer
        async with served_by(transport, (root, QOS_1), service=service) as server:
            held.end("retry", "RuntimeError", 0.0)
            deliveries = await service.came(4)
            await eventually(lambda: not server.intake.holdings.room.in_flight)
    assert sorted(d.data for d in deliveries) == [1, 1, 2, 2]


async def test_letter_that_is_lost_is_published_over_the_next_connection(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but us has it any more."""
    monkeypatch.setattr(failures_module, "LONGEST_DELAY", 0.01)
    letters: list[bytes] = []
    ended = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        while True:
            heard = await client.hear()
            if heard.kind is Kind.SUBSCRIBE:
                client.say(packet(0x90, heard.packet_id, b"\1"))
                client.say(*() if letters else (EVENT,))
            elif heard.kind is Kind.PUBLISH:
                letters.append(heard.body)
                if len(letters) < 2:
                    return
                confirm(client, heard)
                ended.set()

    service = Service(lambda delivery: delivery.end("dead", "no"))
    async with Broker(free_port(), play) as broker:
        transport = MQTTTransport(url=broker.url)
        async with served_by(transport, ("a", QOS_1), service=service) as server:
            await asyncio.wait_for(server.intake.closed, 10)
        async with served_by(transport, ("a", QOS_1), service=service) as server:
            await asyncio.wait_for(ended.wait(), 10)
            await eventually(lambda: not server.intake.driver[0].accepted._open)
    assert all(b'"dm-reason":"no"' in letter for letter in letters)
    assert len(service.deliveries) == 1


async def test_server_that_stops_without_a_connection(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it gives back then is lost, and that is said."""
    service = Service(hold)
    async with (
        Peer(mqtt_server.url) as peer,
        served(mqtt_server.url, (root, QOS_1), service=service) as server,
    ):
        await peer.publish(root, 1)
        (held,) = await service.came(1)
        pausing = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.failures.is_leaving)
        await cut(server)
        held.end("retry", GIVEN_BACK)
        await asyncio.wait_for(pausing, 10)
    assert f"It is lost: {root}" in caplog.text


async def test_server_that_stops_between_two_connections(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds by then is lost, each with a line."""
    transport = MQTTTransport(url=mqtt_server.url)
    service = Service(failing(600.0))
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, (root, QOS_1), service=service) as server:
            held = await cut_with_one_that_rests(server, peer, root)
        held.end("retry", GIVEN_BACK)
        assert caplog.text.count(f"It is lost: {root}") == 2
        service.answer = failing(600.0)
        async with served_by(transport, (root, QOS_1), service=service) as server:
            await peer.publish(root, 3)
            await eventually(lambda: len(server.intake.failures))


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_kept_session_runs_nothing_twice_at_once(
    mqtt_server: Mosquitto, root: str, version: Any, qos: Any
) -> None:
    """What the broker sends again while it is handled is the same message."""
    transport = MQTTTransport(
        url=mqtt_server.url, protocol_version=version, client_id=root, clean=False
    )
    service, pattern = Service(hold), (root, {"qos": qos})
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, pattern, service=service, limit=3) as server:
            for number in range(3):
                await peer.publish(root, number, qos=qos)
            first, second, third = await service.came(3)
            await cut(server)
        first.end()  # acknowledged when the broker asks again
        async with served_by(transport, pattern, service=service, limit=3) as server:
            second.end()
            await peer.publish(root, 3, qos=qos)
            assert [d.data for d in await service.came(4)] == [0, 1, 2, 3]
            third.end()
            service.deliveries[3].end()
            (connection,) = server.intake.driver
            await connection.ping()
            assert not len(connection.accepted)
        async with served_by(transport, pattern, service=service) as server:
            await peer.publish(root, "end", qos=qos)
            assert (await service.came(5))[4].data == "end"


async def cut_when_full(
    transport: MQTTTransport, service: Service, peer: Peer, root: str
) -> None:
    """Have one event run and one wait on a connection that is then lost."""
    async with served_by(transport, root, service=service, limit=1) as server:
        for number in range(2):
            await peer.publish(root, number)
        await eventually(lambda: server.intake.driver[0].deaf)
        await cut(server)


async def test_in_flight_is_counted_over_all_connections(
    mqtt_server: Mosquitto, root: str
) -> None:
    """What a lost connection brought still takes its place."""
    transport, service = MQTTTransport(url=mqtt_server.url), Service(hold)
    async with Peer(mqtt_server.url) as peer:
        await cut_when_full(transport, service, peer, root)
        async with served_by(transport, root, service=service, limit=1) as server:
            assert server.intake.driver[0].deaf
            assert len(service.deliveries) == 1
            service.answer = Delivery.answer
            service.deliveries[0].end()
            await service.came(2)
            await eventually(lambda: not server.intake.driver[0].deaf)


async def test_what_waits_is_handled_between_two_connections(
    mqtt_server: Mosquitto, root: str
) -> None:
    """The next one reads, since there is room again."""
    transport, service = MQTTTransport(url=mqtt_server.url), Service(hold)
    async with Peer(mqtt_server.url) as peer:
        await cut_when_full(transport, service, peer, root)
        service.deliveries[0].end()
        assert [delivery.data for delivery in service.deliveries] == [0, 1]
        async with served_by(transport, root, service=service, limit=1) as server:
            assert not server.intake.driver[0].deaf


async def test_verdict_after_the_end_of_a_kept_session(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker has the event, and brings it again."""
    transport = MQTTTransport(url=mqtt_server.url, client_id=root, clean=False)
    service = Service(hold)
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, (root, QOS_1), service=service):
            await peer.publish(root, 1)
            (delivery,) = await service.came(1)
        delivery.end("dead", "no")
        assert "It is lost" not in caplog.text
        async with served_by(transport, (root, QOS_1), service=service):
            assert [one.data for one in await service.came(2)] == [1, 1]


@pytest.mark.parametrize("reply_qos", [0, 1])
async def test_answer_over_the_next_connection(
    mqtt_server: Mosquitto, root: str, reply_qos: Any
) -> None:
    """The caller, whose own connection is another, still waits for it."""
    transport = MQTTTransport(url=mqtt_server.url, reply_qos=reply_qos)
    service = Service(hold)
    async with Peer(mqtt_server.url) as peer:
        await peer.subscribe(f"{root}/reply")
        async with served_by(transport, root, service=service) as server:
            await peer.publish(root, {"pattern": "x", "data": 1, "id": 7})
            (delivery,) = await service.came(1)
            await cut(server)
        assert delivery.respond(Reply(7, b"1")) is None
        async with served_by(transport, root, service=service):
            delivery.respond(Reply(7, b"2"))
            delivery.end()
            (answer,) = await peer.came(1)
    assert json.loads(answer.payload)["response"] == 2


@pytest.mark.parametrize("reply_qos", [0, 1])
async def test_stream_ends_with_its_connection(
    mqtt_server: Mosquitto, root: str, reply_qos: Any
) -> None:
    """Items may be lost: an end over the next connection would hide that."""
    transport = MQTTTransport(url=mqtt_server.url, reply_qos=reply_qos)
    service = Streams(hold)
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, root, service=service) as server:
            await peer.publish(root, {"pattern": "x", "data": 1, "id": 1})
            (delivery,) = await service.came(1)
            await cut(server)
        assert delivery.cancelled.is_set()


async def test_stream_that_begins_between_two_connections(
    mqtt_server: Mosquitto, root: str
) -> None:
    """It ends with the first item that no connection takes."""
    transport, service = MQTTTransport(url=mqtt_server.url), Streams(hold)
    async with Peer(mqtt_server.url) as peer:
        async with served_by(transport, root, service=service, limit=1) as server:
            for id_ in (1, 2):
                await peer.publish(root, {"pattern": "x", "data": 1, "id": id_})
            await eventually(lambda: server.intake.driver[0].deaf)
            await cut(server)
        one, other = service.deliveries
        assert (one.cancelled.is_set(), other.cancelled.is_set()) == (True, False)
        other.say(b"1", last=False)
        await asyncio.wait_for(other.cancelled.wait(), 10)


# --- dead letters, and what only looks like them ------------------------------------


@VERSIONS
async def test_own_topic_that_looks_like_dead_letters(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """Without the reason it is none, and a wildcard brings it."""
    options: Any = {"group": root, "protocol_version": version}
    async with (
        served(mqtt_server.url, f"{root}/#", f"{root}/dead", **options) as server,
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.publish(f"{root}/dead/a", 1)
        await server.came(1)
        await peer.publish(f"{root}/dead", 2)
        assert await server.came(3) == [1, 2, 2]
