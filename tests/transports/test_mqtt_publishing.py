"""What an MQTT client publishes: events, and what goes with every message."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from django_microservices.transports.mqtt import link as link_module
from django_microservices.transports.mqtt import packer as packer_module
from django_microservices.wire.messages import UNSET
from tests.brokers.mosquitto import Mosquitto

from .mqtt_ends import VERSIONS, linked
from .mqtt_peer import Peer

Ports = Callable[[], int]


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
        ({"qos": [1]}, ValueError, r"options\['qos'\]: \[1\] is not 0, 1 or 2"),
        ({"properties": {"x": 1}}, ValueError, r"options\['properties'\]\['x'\]"),
        ({"properties": 5}, TypeError, r"options\['properties'\]: 5 is not a mapping"),
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
