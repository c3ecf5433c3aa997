"""What becomes of an event that nobody can handle: a dead letter, never a loss."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.transports.mqtt import failures as failures_module
from django_microservices.transports.mqtt import holdings as holdings_module
from django_microservices.transports.mqtt.packets import (
    Kind,
    Publish,
    acknowledged_publish,
    packet,
)
from django_microservices.transports.redelivery import GIVEN_BACK
from tests.brokers.fixtures import running
from tests.brokers.mosquitto import Mosquitto, MosquittoProcess

from .mqtt_ends import QUICK, VERSIONS, ending, hold, served
from .mqtt_peer import Broker, Client, Peer
from .peers import Service, eventually

Ports = Callable[[], int]
QOS_1: Any = {"qos": 1}

DEEP = b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"


def headers_of(letter: Publish) -> dict[str, str]:
    """Return the headers of a dead letter, wherever its version has them."""
    found = json.loads(letter.payload).get("metadata")
    return dict(found or letter.properties["user_properties"])


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
    packet_, headers = json.loads(letter.payload), headers_of(letter)
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


async def test_reason_that_looks_like_a_stop(mqtt_server: Mosquitto, root: str) -> None:
    """What a handler says is no word of the server's: it goes on."""
    service = ending(("dead", GIVEN_BACK), ("retry", "RuntimeError"))
    async with (
        served(mqtt_server.url, (root, QOS_1), service=service, **QUICK) as server,
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        await peer.publish(root, 1)
        (letter,) = await peer.bodies(1)
        await peer.publish(root, 2)
        assert await server.came(3) == [1, 2, 2]
    assert letter["metadata"]["dm-reason"] == GIVEN_BACK


@VERSIONS
async def test_letter_that_was_sent_once_more(
    mqtt_server: Mosquitto, root: str, version: Any
) -> None:
    """An event with the headers of one becomes one as all others do."""
    said = {"a": "b", "dm-reason": "then", "dm-deliveries": "5", "dm-group": "there"}
    service = ending(("dead", "now"))
    options = {**QUICK, "protocol_version": version}
    async with (
        served(mqtt_server.url, (root, QOS_1), service=service, **options),
        Peer(mqtt_server.url, version) as peer,
    ):
        await peer.subscribe(f"g/dead/{root}")
        await peer.publish(root, {"pattern": root, "data": 1, "metadata": said})
        (letter,) = await peer.came(1)
    assert headers_of(letter) == {"a": "b", "dm-reason": "now", "dm-deliveries": "1"}


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


async def test_letter_of_a_long_topic_does_not_come_back(
    mqtt_server: Mosquitto, root: str
) -> None:
    """It stands above all others, and is one as they are."""
    name = f"{root}/" + "x" * (65_530 - len(root) - 1)
    service = ending(("dead", "no"), ("dead", "no"))
    options = {**QUICK, "dead_letter_topic": f"{root}/dead"}
    async with (
        served(mqtt_server.url, (f"{root}/#", QOS_1), service=service, **options),
        Peer(mqtt_server.url) as peer,
    ):
        await peer.subscribe(f"{root}/dead")
        await peer.publish(name, 1)
        await peer.came(1)
        await peer.publish(f"{root}/b", 2)
        assert [one.data for one in await service.came(2)] == [1, 2]


# --- a broker that refuses them -----------------------------------------------------


class StrictProcess(MosquittoProcess):
    """A mosquitto that takes nothing but what is below ``open``."""

    def _security(self) -> list[str]:
        path = self.write("acl", "topic read #\ntopic write open/#\n")
        return [*super()._security(), f"acl_file {path}"]


class Strict(Mosquitto):
    """That server."""

    kind = StrictProcess


@pytest.mark.parametrize(("version", "known"), [(4, 0), (5, 2)], ids=["3.1.1", "5"])
async def test_mosquitto_that_does_not_allow_them(
    root: str, caplog: pytest.LogCaptureFixture, version: Any, known: int
) -> None:
    """Only with MQTT 5 it says so: with 3.1.1 they are gone. Both go on."""
    service = ending(("dead", "no"), ("dead", "no"))
    options: Any = {"protocol_version": version, "clean": False, "client_id": root}
    with running(Strict.private) as broker:
        async with (
            served(broker.url, ("open/a", QOS_1), service=service, **options) as server,
            Peer(broker.url, version) as peer,
        ):
            for number in range(3):
                await peer.publish("open/a", number)
            await server.came(3)
            await eventually(lambda: not server.intake.failures._burying)
            assert server.intake.unburied == known
    assert caplog.text.count("A dead letter from open/a: no") == 2
    assert caplog.text.count("was not taken: the broker refused") == known


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
            clean=False,
            client_id="c",
        ),
    ):
        await asyncio.wait_for(ended.wait(), 10)
    assert heard == [Kind.PUBLISH, Kind.PUBLISH, Kind.PUBACK]
    assert "not authorized" in caplog.text


class Refusing:
    """A broker's part that has three events, and refuses dead letters for a while."""

    def __init__(self) -> None:
        self.code = 0x87
        self.acknowledged: list[int] = []

    async def __call__(self, client: Client) -> None:
        """Play it."""
        await client.greet({})
        one = await client.hear(Kind.SUBSCRIBE)
        client.say(packet(0x90, one.packet_id, b"\0\1"))
        for number in (1, 2, 3):
            client.say(acknowledged_publish(2, b"\0\1a", number, b"\0", b"1"))
        while True:
            heard = await client.hear()
            if heard.kind is Kind.PUBLISH:
                start = 2 + int.from_bytes(heard.body[:2])
                client.say(packet(0x40, heard.body[start : start + 2], self.answer))
            elif heard.kind is Kind.PUBACK:
                self.acknowledged.append(int.from_bytes(heard.packet_id))

    @property
    def answer(self) -> bytes:
        """The reason code of a PUBACK."""
        return bytes((self.code,))


@pytest.mark.parametrize(
    ("clean", "forgotten"), [(False, [2, 3]), (True, [1, 2, 3])], ids=["kept", "clean"]
)
async def test_letters_that_are_refused_hold_nobody_up(
    free_port: Ports,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    clean: bool,  # noqa: FBT001 - pytest's way
    forgotten: list[int],
) -> None:
    """Few stay unacknowledged, all are known as unburied, and none is lost."""
    monkeypatch.setattr(failures_module, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(holdings_module, "RESTING", 1)
    play, service = Refusing(), Service(lambda delivery: delivery.end("dead", "no"))
    options: Any = {"protocol_version": 5, "clean": clean, "client_id": "c"}
    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", QOS_1), service=service, **options) as server,
    ):
        await eventually(lambda: play.acknowledged == forgotten)
        assert server.intake.unburied == 3
        play.code = 0
        await eventually(lambda: not server.intake.unburied)
        await eventually(lambda: sorted(play.acknowledged) == [1, 2, 3])
    assert caplog.text.count("The dead letter from a was not taken") == 3
    assert "It is lost" not in caplog.text


@pytest.mark.parametrize(("clean", "lost"), [(False, 2), (True, 3)])
async def test_stop_with_letters_that_are_refused(
    free_port: Ports,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    clean: bool,  # noqa: FBT001 - pytest's way
    lost: int,
) -> None:
    """Lost is what the broker does not bring again, each with a line."""
    monkeypatch.setattr(holdings_module, "RESTING", 1)
    service = Service(lambda delivery: delivery.end("dead", "no"))
    options: Any = {"protocol_version": 5, "clean": clean, "client_id": "c"}
    async with (
        Broker(free_port(), Refusing()) as broker,
        served(broker.url, ("a", QOS_1), service=service, **options) as server,
    ):
        await eventually(lambda: server.intake.unburied == 3)
    assert caplog.text.count("It is lost: a") == lost


async def test_letters_that_are_refused_while_it_stops(
    free_port: Ports,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broker that keeps the session has them all, and brings them again."""
    monkeypatch.setattr(holdings_module, "RESTING", 1)
    play, service = Refusing(), Service(hold)
    options: Any = {"protocol_version": 5, "clean": False, "client_id": "c"}
    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", QOS_1), service=service, **options) as server,
    ):
        deliveries = await service.came(3)
        pausing = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.failures.is_leaving)
        for delivery in deliveries:
            delivery.end("dead", "no")
        await asyncio.wait_for(pausing, 10)
    assert not play.acknowledged
    assert "It is lost" not in caplog.text


async def test_refused_letters_fill_no_memory(
    free_port: Ports,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Beyond a bound they are lost at once, and that is said."""
    monkeypatch.setattr(failures_module, "MOST_RESTING", 1)
    play, service = Refusing(), Service(lambda delivery: delivery.end("dead", "no"))
    async with (
        Broker(free_port(), play) as broker,
        served(broker.url, ("a", QOS_1), service=service, protocol_version=5) as server,
    ):
        await eventually(lambda: play.acknowledged == [1, 2, 3])
        assert server.intake.unburied == 1
        assert caplog.text.count("It is lost: a") == 2
