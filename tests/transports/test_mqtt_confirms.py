"""What the broker says to what an MQTT client publishes, or that it says nothing."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.mqtt.packets import MQTT_5, Kind, packet
from django_microservices.transports.mqtt.reader import PacketReader
from django_microservices.transports.mqtt.stream import Stream
from django_microservices.wire.messages import UNSET
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import linked, served
from .mqtt_peer import Broker, Client, Heard
from .peers import Calls, eventually

Ports = Callable[[], int]


def read(heard: Heard) -> Any:
    """Read a message of MQTT 5 as a subscriber does."""
    (publish,) = PacketReader(MQTT_5, 10**6).receive(packet(heard.first, heard.body))
    return publish


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
        heard.append(read(await client.hear(Kind.PUBLISH)))
        heard.append(read(await client.hear(Kind.PUBLISH)))
        await go_on.wait()
        for one in heard[:2]:
            client.say(packet(0x40, one.packet_id.to_bytes(2)))
        heard.append(read(await client.hear(Kind.PUBLISH)))
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


async def held_up(calls: Calls) -> Any:
    """Publish until there is something to wait for, and return that."""
    waiting: Any = None
    while waiting is None:
        waiting = calls.send("a", b'"' + b"x" * 100_000 + b'"', UNSET)
        await asyncio.sleep(0)
    return waiting


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
        waiting = await held_up(calls)
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
        waiting = await held_up(calls)
        drained = asyncio.ensure_future(_awaited(waiting))
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(drained, 10)


async def _awaited(waiting: Any) -> None:
    await waiting
