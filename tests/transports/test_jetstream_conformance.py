"""JetStream passes the public conformance suite."""

from typing import Any

from django_microservices.transports.jetstream import JetStreamTransport

from .nats_peer import Peer
from .test_nats_conformance import TestNATS as OnNATS
from .test_nats_conformance import broker

__all__ = ["broker"]


class TestJetStream(OnNATS):
    """The JetStream transport."""

    transport = JetStreamTransport

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Publish a body, both for requests and for events."""
        async with Peer(self.broker.url) as peer:
            await peer.publish(pattern, body, reply="_INBOX.nobody")
            await peer.publish(f"dm-events.{pattern}", body)

    async def dead_letters(self) -> list[str]:
        """Return the reasons."""
        async with Peer(self.broker.url) as peer:
            found: Any = await peer.dead_letters(f"dm-events-dead.{self.name}.>")
        return [headers["dm-reason"] for headers in found]
