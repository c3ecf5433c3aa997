"""RabbitMQ passes the public conformance suite.

Straight to a queue it passes those parts that the way of a message may touch.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pamqp import commands

from django_microservices.concurrency.portal import portal
from django_microservices.testing.conformance import TransportConformance
from django_microservices.testing.conformance.bench import Bench
from django_microservices.testing.conformance.configured import ConfiguredCases
from django_microservices.testing.conformance.errors import ErrorCases
from django_microservices.testing.conformance.events import EventCases
from django_microservices.testing.conformance.lifecycle import LifecycleCases
from django_microservices.testing.conformance.requests import RequestCases
from django_microservices.testing.conformance.settling import SettlingCases
from django_microservices.testing.conformance.wildcards import WildcardCases
from django_microservices.transports.rabbitmq import RabbitMQTransport
from django_microservices.transports.rabbitmq.outgoing import GRACE
from tests.brokers.rabbitmq import RabbitMQ

from .rabbitmq_peer import Peer


@pytest.fixture(scope="module")
def broker(start_server: Callable[..., RabbitMQ]) -> Iterator[RabbitMQ]:
    """Give a RabbitMQ that tests may stop; the portal's connections end before it."""
    yield start_server(RabbitMQ)
    portal.stop()


class OnRabbitMQ(Bench):
    """What the variants have in common."""

    transport = RabbitMQTransport
    patience = 60.0  # it starts slowly
    grace = GRACE

    @pytest.fixture(autouse=True)
    def _broker(self, broker: RabbitMQ) -> None:
        self.broker = broker

    def options(self) -> dict[str, Any]:
        """Say where it is."""
        return {"url": self.broker.url}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Publish a body to whom it may concern."""
        with Peer(self.broker.url) as peer:
            peer.publish("amq.topic", pattern, body)

    async def dead_letters(self) -> list[str]:
        """Return the reasons in the headers of the queue of dead letters."""
        queue = f"{self.name}.dead"
        with Peer(self.broker.url) as peer:
            peer.call(commands.Queue.Declare(0, queue, durable=True))
            letters = peer.drain(queue)
        return [str((one.properties.headers or {})["x-dm-reason"]) for one in letters]

    async def break_links(self) -> None:
        """Have the broker cut every connection."""
        await asyncio.to_thread(self.broker.ctl, "close_all_connections", "a test")

    async def stop_broker(self) -> None:
        """Have it be away."""
        await asyncio.to_thread(self.broker.stop)

    async def start_broker(self) -> None:
        """Have it be back."""
        await asyncio.to_thread(self.broker.start)


class TestRabbitMQ(OnRabbitMQ, TransportConformance):
    """Through the topic exchange: the default."""


class TestQueue(
    OnRabbitMQ,
    RequestCases,
    ErrorCases,
    EventCases,
    WildcardCases,
    SettlingCases,
    LifecycleCases,
    ConfiguredCases,
):
    """Straight to the queue of a service, as Nest's clients do."""

    def options(self) -> dict[str, Any]:
        """Name the service's queue."""
        return super().options() | {"queue": self.name}
