"""MQTT passes the public conformance suite: both versions.

With QoS 1 it passes those parts that what is acknowledged and kept may touch.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest

from django_microservices.concurrency.portal import portal
from django_microservices.testing.conformance import TransportConformance
from django_microservices.testing.conformance.bench import Bench
from django_microservices.testing.conformance.configured import ConfiguredCases
from django_microservices.testing.conformance.events import EventCases
from django_microservices.testing.conformance.faults import FaultCases
from django_microservices.testing.conformance.lifecycle import LifecycleCases
from django_microservices.testing.conformance.requests import RequestCases
from django_microservices.testing.conformance.settling import SettlingCases
from django_microservices.testing.conformance.wildcards import WildcardCases
from django_microservices.transports.mqtt import MQTTTransport
from tests.brokers.mosquitto import Mosquitto

from .mqtt_peer import Peer


@pytest.fixture(scope="module")
def broker(start_server: Callable[..., Mosquitto]) -> Iterator[Mosquitto]:
    """Give a broker that tests may stop; the portal's connections end before it."""
    yield start_server(Mosquitto)
    portal.stop()


class OnMQTT(Bench):
    """What the variants have in common."""

    transport = MQTTTransport
    version: ClassVar[int]

    @pytest.fixture(autouse=True)
    def _broker(self, broker: Mosquitto) -> None:
        self.broker = broker

    def options(self) -> dict[str, Any]:
        """Say where it is."""
        return {"url": self.broker.url, "protocol_version": self.version}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Publish a body."""
        async with Peer(self.broker.url) as peer:
            await peer.publish(pattern, body)

    async def break_links(self) -> None:
        """Have the broker come back at once."""
        await asyncio.to_thread(self.broker.restart)

    async def stop_broker(self) -> None:
        """Have it be away."""
        await asyncio.to_thread(self.broker.stop)

    async def start_broker(self) -> None:
        """Have it be back."""
        await asyncio.to_thread(self.broker.start)


class TestMQTT3(OnMQTT, TransportConformance):
    """MQTT 3.1.1, as Nest has it."""

    version = 4


class TestMQTT5(OnMQTT, TransportConformance):
    """MQTT 5."""

    version = 5


class QoS1(
    OnMQTT,
    RequestCases,
    EventCases,
    WildcardCases,
    SettlingCases,
    LifecycleCases,
    FaultCases,
    ConfiguredCases,
):
    """Every event confirmed and acknowledged."""

    def server_options(self) -> dict[str, Any]:
        """Subscribe with QoS 1."""
        return {**self.options(), "subscribe_options": {"qos": 1}}

    def client_options(self) -> dict[str, Any]:
        """Publish events with QoS 1."""
        return {**self.options(), "publish_options": {"qos": 1}}

    @pytest.fixture(autouse=True)
    async def _cemetery(self, broker: Mosquitto) -> AsyncIterator[None]:
        async with Peer(broker.url, 5) as self.cemetery:
            await self.cemetery.subscribe(f"{self.name}/dead/#")
            yield
        del self.cemetery  # or pytest keeps it, as it keeps the object of each test

    async def dead_letters(self) -> list[str]:
        """Return the reasons that were given."""
        letters = [json.loads(one.payload) for one in self.cemetery.messages]
        texts = [letter.get("metadata", {}) for letter in letters]
        texts += [
            dict(one.properties.get("user_properties", ()))
            for one in self.cemetery.messages
        ]
        return [text["dm-reason"] for text in texts if "dm-reason" in text]


class TestMQTT3QoS1(QoS1):
    """With 3.1.1."""

    version = 4


class TestMQTT5Durable(QoS1):
    """With 5, and a session that the broker keeps."""

    version = 5

    def server_options(self) -> dict[str, Any]:
        """Have a name by which the broker knows the server."""
        return {**super().server_options(), "client_id": self.name, "clean": False}
