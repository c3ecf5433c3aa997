"""What an MQTT server hears and answers, before a real broker."""

import asyncio
import json
from typing import Any

import pytest

from django_microservices.exceptions import (
    InvalidMessage,
)
from django_microservices.transports.mqtt import inlet as inlet_module
from django_microservices.transports.mqtt.packets import (
    Publish,
)
from django_microservices.wire.messages import UNSET, Reply
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, hold, served
from .mqtt_peer import Peer
from .peers import Service, eventually

# --- requests and events ------------------------------------------------------------


@VERSIONS
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


@VERSIONS
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


@VERSIONS
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


@VERSIONS
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
