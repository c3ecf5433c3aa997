"""What becomes of an MQTT server's events, before a real broker."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.transports.mqtt import failures as failures_module
from django_microservices.transports.mqtt.packets import (
    DUP,
    Kind,
    acknowledged_publish,
    packet,
)
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import QUICK, VERSIONS, ending, hold, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]

DEEP = b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"


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


@VERSIONS
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
