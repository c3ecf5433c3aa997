"""How an MQTT server ends, before a real broker and one that hangs."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
)
from django_microservices.transports.mqtt import connection as connection_module
from django_microservices.transports.mqtt.packets import (
    Kind,
)
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import QUICK, VERSIONS, ending, hold, linked, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]


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


@VERSIONS
@pytest.mark.parametrize("pauses", [True, False])
async def test_clean_session_buries_what_would_be_forgotten(
    mqtt_server: Mosquitto,
    root: str,
    version: Any,
    pauses: bool,  # noqa: FBT001
) -> None:
    """What rests, or is given back, when a server stops: its broker keeps nothing."""
    service = ending(("retry", "RuntimeError", 600.0))
    options = {**QUICK, "protocol_version": version}
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


@VERSIONS
async def test_kept_session_brings_back_what_was_not_done(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """What rests, what is given back, and what came meanwhile: all of it comes."""
    options: Any = {
        "client_id": root,
        "clean": False,
        "protocol_version": version,
    }
    pattern = (root, {"qos": 1})
    service = ending(("retry", "RuntimeError", 600.0))
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
