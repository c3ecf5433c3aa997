"""What becomes of an MQTT server's events, before a real broker."""

import asyncio
import json
from collections.abc import Callable

import pytest

from django_microservices.transports.mqtt.packets import DUP, Kind, acknowledged_publish
from django_microservices.wire.unreadable import UNREADABLE
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import QUICK, ending, hold, served
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
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller gets an error, the broker its acknowledgement, and we a line."""
    deep = b'{"data":' + b"[" * 100 + b"]" * 100 + b',"id":"7"}'
    async with (
        served(mqtt_server.url, (root, {"qos": 1}), **QUICK),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/reply")
        await peer.publish(root, deep)
        (answer,) = await peer.bodies(1)
    assert answer["err"] == json.loads(UNREADABLE)
    assert f"Refused a request: {root} brought what nests too deeply." in caplog.text
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
