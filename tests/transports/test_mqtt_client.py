"""The requests of an MQTT client, before a real broker and a broker's part."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import InvalidMessage, TransportRefused
from django_microservices.transports.mqtt import replies as replies_module
from django_microservices.transports.mqtt.packets import Kind, packet, publish_packet
from django_microservices.transports.mqtt.properties import NONE, text_bytes
from django_microservices.wire.codecs import decode
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, linked
from .mqtt_peer import Broker, Client, Heard, Peer
from .peers import eventually

Ports = Callable[[], int]


def answer(pattern: str, id_: str, data: Any = 1) -> bytes:
    """Write what a server publishes."""
    body = {"response": data, "isDisposed": True, "id": id_}
    return publish_packet(text_bytes(f"{pattern}/reply"), json.dumps(body).encode())


@VERSIONS
async def test_request_has_nests_shape(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """Its topic is the pattern's route, the pattern in it as given (A.2)."""
    pattern = {"z": 1, "a": root}
    topic = f'{{"a":"{root}","z":1}}'
    async with (
        Peer(mqtt_server.url, version) as peer,
        linked(mqtt_server.url, protocol_version=version) as calls,
    ):
        await peer.subscribe(topic)
        calls.send(pattern, b"[1]", "7", timeout=2.0)
        (request,) = await peer.came(1)
        own = {"dm-peer": "1", "dm-timeout": "2000"}
        expected = {"pattern": pattern, "data": [1], "id": "7"}
        if version == 4:
            expected["metadata"] = own
        else:
            assert dict(request.properties["user_properties"]) == own
        assert json.loads(request.payload) == expected
        assert (request.qos, request.retain) == (0, False)
        await peer.publish(
            f"{topic}/reply", {"response": 6, "isDisposed": True, "id": "7"}
        )
        (reply,) = await calls.came(1)
    assert (reply.id, bytes(reply.data or b""), reply.last) == ("7", b"6", True)


async def test_request_waits_for_its_answers_topic(free_port: Ports) -> None:
    """It is sent when the broker has taken the subscription, and then at once."""
    order: list[Kind] = []
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        one = await client.hear()
        order.append(one.kind)
        assert one.body[2:] == b"\x00\x07a/reply\x00"
        await go_on.wait()
        client.say(packet(0x90, one.packet_id, b"\0"))
        for id_ in ("1", "2", "3"):
            order.append((await client.hear()).kind)
            client.say(answer("a", id_))
        await client.stay()

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        held = [calls.send("a", id_=id_) for id_ in ("1", "2")]
        await eventually(lambda: order)
        assert order == [Kind.SUBSCRIBE]
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*held), 10)
        await calls.came(2)
        assert calls.send("a", id_="3") is None
        await calls.came(3)
    assert order == [Kind.SUBSCRIBE, *[Kind.PUBLISH] * 3]


async def test_abandoned_request_is_not_sent(free_port: Ports) -> None:
    """Whoever gives up before the SUBACK has asked nothing."""
    heard: list[bytes] = []
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        one = await client.hear()
        await go_on.wait()
        client.say(packet(0x90, one.packet_id, b"\0"))
        while True:
            heard.append((await client.hear(Kind.PUBLISH)).body)

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        first, second = (calls.send("a", id_=id_) for id_ in ("1", "2"))
        calls.link.forget("1", answered=False)
        assert first.cancelled()
        go_on.set()
        await asyncio.wait_for(second, 10)
        await eventually(lambda: heard)
    assert b'"id":"2"' in heard[0]
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("version", "code", "says"),
    [(4, 0x80, "unspecified error"), (5, 0x87, "not authorized")],
)
async def test_refused_answers_topic(
    free_port: Ports, version: Any, code: int, says: str
) -> None:
    """Nobody could be answered there: each call fails, and the next one asks again."""
    asked: list[Heard] = []

    async def play(client: Client) -> None:
        await client.greet(None if version == 4 else NONE)
        while True:
            asked.append(await client.hear(Kind.SUBSCRIBE))
            none = b"" if version == 4 else b"\0"
            client.say(packet(0x90, asked[-1].packet_id, none, bytes((code,))))

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, protocol_version=version) as calls,
    ):
        errors = await asyncio.gather(
            *(calls.send("a", id_=id_) for id_ in ("1", "2")), return_exceptions=True
        )
        with pytest.raises(TransportRefused, match=f"a/reply: {says}"):
            await calls.send("a", id_="3")
    assert {type(error) for error in errors} == {TransportRefused}
    assert errors[0] is not errors[1]
    assert len(asked) == 2


async def test_answers_topic_is_left_when_idle(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: the next request would pay for it. And then it is joined again."""
    monkeypatch.setattr(replies_module, "IDLE", 0.05)
    heard: list[Kind] = []

    async def play(client: Client) -> None:
        await client.greet()
        while True:
            one = await client.hear()
            heard.append(one.kind)
            if one.kind is Kind.SUBSCRIBE:
                client.say(packet(0x90, one.packet_id, b"\0"))
            elif one.kind is Kind.UNSUBSCRIBE:
                assert one.body[2:] == b"\x00\x07a/reply"
                client.say(packet(0xB0, one.packet_id))

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        await calls.send("a", id_="1")
        await calls.send("b", id_="2")
        calls.link.forget("1", answered=True)
        await eventually(lambda: Kind.UNSUBSCRIBE in heard)
        await calls.send("a", id_="3")
        assert calls.send("b", id_="4") is None
        calls.link.forget("2", answered=True)
        calls.link.forget("unknown", answered=True)
    joined = [Kind.SUBSCRIBE, Kind.PUBLISH]
    assert heard[:5] == [*joined, *joined, Kind.UNSUBSCRIBE]
    assert heard.count(Kind.SUBSCRIBE) == 3


async def test_idle_client_looks_no_more(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no topic left there is nothing to look after."""
    monkeypatch.setattr(replies_module, "IDLE", 0.02)
    async with linked(mqtt_server.url) as calls:
        await calls.send(root, id_="1")
        calls.link.forget("1", answered=True)
        replies = calls.link.replies  # type: ignore[attr-defined]
        await eventually(lambda: replies._timer is None)
        assert not replies._topics


async def test_answers_of_others_are_ignored(mqtt_server: Mosquitto, root: str) -> None:
    """All clients share the topic, and whoever publishes there harms nobody."""
    async with Peer(mqtt_server.url) as peer, linked(mqtt_server.url) as calls:
        await calls.send(root, id_="1")
        topic = f"{root}/reply"
        deep = b'{"response":' + b"[" * 100 + b"]" * 100 + b',"id":"deep"}'
        for body in (b"", b"no json", b"[]", b"7", b'{"id":"2","response":1}', deep):
            await peer.publish(topic, body)
        await peer.publish(topic, {"response": 1, "isDisposed": True, "id": "1"})
        replies = await calls.came(3)
        assert calls.link.ignored == 4
    assert [reply.id for reply in replies] == ["2", "deep", "1"]
    with pytest.raises(InvalidMessage, match="Nested deeper than 64 levels"):
        decode(replies[1].data or b"")


async def test_answer_that_is_too_large(
    mqtt_server: Mosquitto, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be told whose it is: it is logged, and the others come."""
    async with (
        Peer(mqtt_server.url) as peer,
        linked(mqtt_server.url, max_frame_size=1024, reply_qos=1) as calls,
    ):
        await calls.send(root, id_="1")
        topic = f"{root}/reply"
        await peer.publish(topic, {"response": "x" * 2000, "id": "1"})
        await peer.publish(topic, {"response": 1, "isDisposed": True, "id": "1"})
        await calls.came(1)
    assert "Dropped an answer of" in caplog.text


async def test_answers_of_qos_1_are_acknowledged(free_port: Ports) -> None:
    """By option the topic is subscribed with QoS 1, and each answer acknowledged."""
    ended = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        one = await client.hear()
        assert one.body[-1] == 1
        client.say(packet(0x90, one.packet_id, b"\1"))
        await client.hear(Kind.PUBLISH)
        body = b'{"response":1,"isDisposed":true,"id":"1"}'
        client.say(packet(0x32, text_bytes("a/reply"), b"\0\5", body))
        assert (await client.hear(Kind.PUBACK)).body == b"\0\5"
        ended.set()
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, reply_qos=1) as calls,
    ):
        await calls.send("a", id_="1")
        await asyncio.wait_for(ended.wait(), 10)
        await calls.came(1)
