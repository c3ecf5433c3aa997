"""The client's half of the MQTT wire, before a real broker and a broker's part."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.mqtt import link as link_module
from django_microservices.transports.mqtt import packer as packer_module
from django_microservices.transports.mqtt import replies as replies_module
from django_microservices.transports.mqtt.packets import (
    Ack,
    Kind,
    packet,
    publish_packet,
)
from django_microservices.transports.mqtt.properties import NONE, text_bytes
from django_microservices.transports.mqtt.reader import PacketReader
from django_microservices.transports.mqtt.stream import Stream
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, linked, served
from .mqtt_peer import Broker, Client, Heard, Peer
from .peers import eventually

Ports = Callable[[], int]


def answer(pattern: str, id_: str, data: Any = 1) -> bytes:
    """Write what a server publishes."""
    body = {"response": data, "isDisposed": True, "id": id_}
    return publish_packet(text_bytes(f"{pattern}/reply"), json.dumps(body).encode())


def read(heard: Heard, version: int = 4) -> Any:
    """Read a message as a subscriber does."""
    (publish,) = PacketReader(version, 10**6).receive(packet(heard.first, heard.body))
    return publish


# --- requests -----------------------------------------------------------------------


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


# --- events, and what goes with a message -------------------------------------------


@VERSIONS
async def test_event_has_nests_shape(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """No id, no headers of ours, and no waiting."""
    async with (
        Peer(mqtt_server.url, version) as peer,
        linked(mqtt_server.url, protocol_version=version) as calls,
    ):
        await peer.subscribe(root)
        assert calls.send(root, b"1", UNSET) is None
        assert calls.send(root, cast("bytes", UNSET), UNSET) is None
        first, second = await peer.came(2)
    assert first.payload == b'{"pattern":"%b","data":1}' % root.encode()
    assert second.payload == b'{"pattern":"%b"}' % root.encode()
    assert not first.properties


@pytest.mark.parametrize("qos", [1, 2])
@VERSIONS
async def test_confirmed_event(
    mqtt_server: Mosquitto, root: str, version: Any, qos: Any
) -> None:
    """With QoS 1 and 2 there is something to wait for: the broker's word."""
    async with (
        Peer(mqtt_server.url) as peer,
        linked(mqtt_server.url, protocol_version=version) as calls,
    ):
        await peer.subscribe(root, qos=1)
        await asyncio.wait_for(calls.send(root, id_=UNSET, options={"qos": qos}), 10)
        (event,) = await peer.came(1)
    assert event.qos == 1


async def test_options_of_all_events(mqtt_server: Mosquitto, root: str) -> None:
    """``publish_options`` say it for all; one message may say otherwise."""
    async with (
        Peer(mqtt_server.url) as peer,
        linked(mqtt_server.url, publish_options={"qos": 1, "retain": True}) as calls,
    ):
        await asyncio.wait_for(calls.send(root, b"1", UNSET), 10)
        await peer.subscribe(root, qos=1)
        (retained,) = await peer.came(1)
        assert retained.retain
        loose = {"qos": 0, "retain": False}
        assert calls.send(root, b"2", UNSET, options=loose) is None
        await peer.came(2)
        assert [one.qos for one in peer.messages] == [1, 0]
        await calls.send(root, b"3", "7")  # a request is never retained
        assert calls.send(root, b"4", UNSET, options={"qos": 0, "retain": True}) is None
        await peer.came(4)
        async with Peer(mqtt_server.url) as late:
            await late.subscribe(root)
            (last,) = await late.came(1)
        assert json.loads(last.payload)["data"] == 4
        await peer.publish(root, b"", retain=True)


async def test_everything_that_5_can_say(mqtt_server: Mosquitto, root: str) -> None:
    """Properties, headers and user properties of one message, and of all."""
    async with (
        Peer(mqtt_server.url, 5) as peer,
        linked(
            mqtt_server.url, protocol_version=5, user_properties={"all": "1"}
        ) as calls,
    ):
        await peer.subscribe(root)
        options = {
            "properties": {"correlation_data": b"x", "response_topic": "r"},
            "content_type": "application/json",
            "expiration": 10.2,
            "user_properties": {"one": "2"},
            "persistent": True,
        }
        calls.send(root, b"1", UNSET, headers={"h": "3"}, options=options)
        (first,) = await peer.came(1)
    assert dict(first.properties) == {
        "correlation_data": b"x",
        "response_topic": "r",
        "content_type": "application/json",
        "message_expiry_interval": 11,
        "user_properties": (("all", "1"), ("one", "2"), ("h", "3")),
    }


async def test_headers_of_3(mqtt_server: Mosquitto, root: str) -> None:
    """They are ``metadata`` there, and what only 5 knows is left out."""
    async with Peer(mqtt_server.url) as peer, linked(mqtt_server.url) as calls:
        await peer.subscribe(root)
        options = {"content_type": "x", "user_properties": {"a": "b"}}
        calls.send(root, b"1", UNSET, headers={"h": "3"}, options=options)
        (event,) = await peer.bodies(1)
    assert event == {"pattern": root, "data": 1, "metadata": {"h": "3"}}


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"qos": 3}, ValueError, r"options\['qos'\]: 3 is not 0, 1 or 2"),
        ({"properties": {"x": 1}}, ValueError, r"options\['properties'\]\['x'\]"),
        ({"content_type": "a\nb"}, ValueError, "content_type"),
        ({"expiration": -1}, ValueError, r"options\['expiration'\]"),
        ({"expiration": "soon"}, TypeError, r"options\['expiration'\]"),
        ({"user_properties": {"a": 1}}, ValueError, "user_properties"),
        ({"user_properties": 7}, TypeError, "user_properties"),
    ],
)
async def test_wrong_options_of_a_message(
    mqtt_server: Mosquitto,
    options: dict[str, Any],
    kind: type[Exception],
    says: str,
) -> None:
    """They are named, and nothing is sent: the connection lives."""
    async with linked(mqtt_server.url, protocol_version=5) as calls:
        with pytest.raises(kind, match=says):
            calls.send("a", id_=UNSET, options=options)
        assert calls.send("a", id_=UNSET) is None
        assert not calls.link.closed.done()


async def test_header_that_would_cut_the_connection(mqtt_server: Mosquitto) -> None:
    """Mosquitto hangs up on a control character in a user property: it is refused."""
    async with linked(mqtt_server.url, protocol_version=5) as calls:
        with pytest.raises(ValueError, match="a control character"):
            calls.send("a", id_=UNSET, headers={"h": "a\nb"})


@pytest.mark.parametrize(
    "pattern", ["a/+", "#", "$SYS/x", "a\0", "a\nb", "", "x" * 65_535, {"a": "+"}]
)
async def test_pattern_that_is_no_topic(mqtt_server: Mosquitto, pattern: Any) -> None:
    """It is refused with its name, and nothing is sent: a broker would hang up."""
    async with linked(mqtt_server.url) as calls:
        with pytest.raises(ValueError, match="cannot be a topic"):
            calls.send(pattern)
        with pytest.raises(ValueError, match="cannot be a topic"):
            calls.send(pattern, id_=UNSET)
        await calls.send("a", id_="1")
        assert not calls.link.closed.done()


async def test_nothing_is_remembered_without_end(
    mqtt_server: Mosquitto, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither topics nor timeouts."""
    monkeypatch.setattr(link_module, "_MOST_KNOWN", 2)
    monkeypatch.setattr(packer_module, "_MOST_KEPT", 2)
    async with linked(mqtt_server.url, protocol_version=5) as calls:
        for number in range(5):
            calls.send(f"{root}/{number}", id_=UNSET)
            calls.send(f"{root}/r", id_=str(number), timeout=number + 1.0)
        assert len(calls.link._topics) <= 2  # type: ignore[attr-defined]
        assert len(calls.link._packer._of_requests) <= 2  # type: ignore[attr-defined]


# --- what the broker answers --------------------------------------------------------


async def test_request_for_which_nobody_listens(
    mqtt_server: Mosquitto, root: str
) -> None:
    """With MQTT 5 and QoS 1 the broker says so, and the call ends at once."""
    async with linked(mqtt_server.url, protocol_version=5) as calls:
        await calls.send(root, id_="1", options={"qos": 1})
        (reply,) = await calls.came(1)
        assert (reply.id, reply.missing) == ("1", True)
        async with served(mqtt_server.url, root, group="g", protocol_version=5):
            await calls.send(root, id_="2", options={"qos": 1})
            assert not (await calls.came(2))[1].missing


async def test_confirm_that_nobody_awaits(free_port: Ports) -> None:
    """A request that is given up, before or after it is sent, ends quietly."""

    async def play(client: Client) -> None:
        await client.greet({})
        one = await client.hear(Kind.SUBSCRIBE)
        client.say(packet(0x90, one.packet_id, b"\0\0"))
        for _ in range(3):
            await client.hear(Kind.PUBLISH)

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        held = calls.send("a", id_="1", options={"qos": 1})
        await eventually(lambda: calls.link._asked["1"].is_ready)  # type: ignore[attr-defined]
        held.cancel()
        calls.send("a", id_="2", options={"qos": 1}).cancel()
        calls.send("a", id_="3", options={"qos": 1})
        await asyncio.wait_for(calls.link.closed, 10)


@pytest.mark.parametrize(("qos", "kind"), [(1, Kind.PUBACK), (2, Kind.PUBREC)])
async def test_refused_message(free_port: Ports, qos: int, kind: Kind) -> None:
    """A refusal is the publisher's to know."""

    async def play(client: Client) -> None:
        await client.greet({})
        await client.hear(Kind.PUBLISH)
        client.say(packet(kind << 4, b"\0\1\x97"))
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        with pytest.raises(
            TransportRefused, match="refused the message: quota exceeded"
        ):
            await asyncio.wait_for(calls.send("a", id_=UNSET, options={"qos": qos}), 10)


async def test_receive_maximum(free_port: Ports) -> None:
    """No more is under way than the broker takes."""
    heard: list[Any] = []
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet({"receive_maximum": 2})
        heard.append(read(await client.hear(Kind.PUBLISH), 5))
        heard.append(read(await client.hear(Kind.PUBLISH), 5))
        await go_on.wait()
        for one in heard[:2]:
            client.say(packet(0x40, one.packet_id.to_bytes(2)))
        heard.append(read(await client.hear(Kind.PUBLISH), 5))
        client.say(packet(0x40, heard[-1].packet_id.to_bytes(2)))
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        waiting = [calls.send("a", id_=UNSET, options={"qos": 1}) for _ in range(3)]
        await eventually(lambda: len(heard) == 2)
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)


@pytest.mark.parametrize("options", [{}, {"qos": 1}])
async def test_message_that_is_too_large(
    mqtt_server: Mosquitto, root: str, options: dict[str, Any]
) -> None:
    """It is refused here: the broker would hang up, or nobody read it."""
    async with linked(mqtt_server.url, max_frame_size=2000) as calls:
        with pytest.raises(MessageTooLarge, match="max_frame_size"):
            calls.send(root, b'"' + b"x" * 2000 + b'"', UNSET, options=options)
        await calls.send(root, b"1", "1")
        with pytest.raises(MessageTooLarge):
            calls.send(root, b'"' + b"x" * 2000 + b'"', "2", options=options)


async def test_held_message_that_is_too_large(
    mqtt_server: Mosquitto, root: str
) -> None:
    """Also where it is only found when it is sent."""
    async with linked(mqtt_server.url, max_frame_size=2000) as calls:
        with pytest.raises(MessageTooLarge):
            await calls.send(root, b'"' + b"x" * 2000 + b'"', "1")


async def test_limit_of_the_broker(free_port: Ports) -> None:
    """A broker of MQTT 5 may take less than we would send."""

    async def play(client: Client) -> None:
        await client.greet({"maximum_packet_size": 100})
        await client.stay()

    async with (
        Broker(free_port(), play) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        with pytest.raises(MessageTooLarge, match="takes: 100"):
            calls.send("a", b"1" * 100, UNSET)


# --- the end ------------------------------------------------------------------------


async def test_lost_connection_ends_what_waits(free_port: Ports) -> None:
    """Confirms, and requests that wait for their topic; then nothing can be sent."""

    async def play(client: Client) -> None:
        await client.greet()
        for _ in range(2):
            await client.hear()

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        waiting = [
            calls.send("a", id_=UNSET, options={"qos": 1}),
            calls.send("b", id_="1"),
        ]
        errors = await asyncio.wait_for(
            asyncio.gather(*waiting, return_exceptions=True), 10
        )
        assert [type(error) for error in errors] == [ConnectionLost] * 2
        assert isinstance(await calls.link.closed, ConnectionLost)
        with pytest.raises(NotConnected, match="the broker closed"):
            calls.send("a", id_=UNSET)


async def test_late_answer_to_a_call_that_is_gone(free_port: Ports) -> None:
    """A confirm that nobody awaits any more, and one that is lost, harm nobody."""

    async def play(client: Client) -> None:
        await client.greet()
        for _ in range(2):
            await client.hear(Kind.PUBLISH)
        client.say(packet(0x40, b"\0\1"), packet(0xD0))
        with suppress(asyncio.IncompleteReadError):
            await client.hear(Kind.PINGREQ)

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        for _ in range(2):
            calls.send("a", id_=UNSET, options={"qos": 1}).cancel()
        await eventually(lambda: len(calls.link.connection.asked._pending) == 1)  # type: ignore[attr-defined]


async def test_slow_broker_holds_the_publisher_up(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it does not keep up, there is something to wait for, also with QoS 0."""
    monkeypatch.setattr(Stream, "high_water", 1024)
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await go_on.wait()
        await client.stay()

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        waiting: Any = None
        while waiting is None:
            waiting = calls.send("a", b'"' + b"x" * 100_000 + b'"', UNSET)
            await asyncio.sleep(0)
        drained = [asyncio.ensure_future(_awaited(waiting)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not drained[0].done()
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*drained), 10)


async def test_publisher_is_not_held_up_for_ever(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that ends meanwhile is an error."""
    monkeypatch.setattr(Stream, "high_water", 1024)
    go_on = asyncio.Event()

    async def play(client: Client) -> None:
        await client.greet()
        await go_on.wait()

    async with Broker(free_port(), play) as broker, linked(broker.url) as calls:
        waiting: Any = None
        while waiting is None:
            waiting = calls.send("a", b'"' + b"x" * 100_000 + b'"', UNSET)
            await asyncio.sleep(0)
        drained = asyncio.ensure_future(_awaited(waiting))
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(drained, 10)


async def _awaited(waiting: Any) -> None:
    await waiting


def test_ack_of_nothing() -> None:
    """A code that stands nowhere is a success."""
    assert Ack(Kind.PUBACK, 1).codes == b"\0"
