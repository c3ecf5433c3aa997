"""NATS passes the public conformance suite."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_microservices.concurrency.portal import portal
from django_microservices.testing.conformance import TransportConformance
from django_microservices.transports.nats import NATSTransport
from tests.brokers.nats import NATS

from .nats_peer import Peer


@pytest.fixture(scope="module")
def broker(start_server: Callable[..., NATS]) -> Iterator[NATS]:
    """Give a NATS that tests may stop; the portal's connections end before it."""
    yield start_server(NATS)
    portal.stop()


class TestNATS(TransportConformance):
    """The NATS transport."""

    transport = NATSTransport

    @pytest.fixture(autouse=True)
    def _broker(self, broker: NATS) -> None:
        self.broker = broker

    def options(self) -> dict[str, Any]:
        """Say where it is."""
        return {"url": self.broker.url}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Publish a body, as somebody who awaits an answer."""
        async with Peer(self.broker.url) as peer:
            await peer.publish(pattern, body, reply="_INBOX.nobody")

    async def break_links(self) -> None:
        """Have the broker come back at once."""
        await asyncio.to_thread(self.broker.restart)

    async def stop_broker(self) -> None:
        """Have it be away."""
        await asyncio.to_thread(self.broker.stop)

    async def start_broker(self) -> None:
        """Have it be back."""
        await asyncio.to_thread(self.broker.start)
