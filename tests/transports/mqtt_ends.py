"""Both halves of the MQTT wire, opened for a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from django_microservices.transports import MQTTTransport
from django_microservices.transports.mqtt.intake import Intake
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import Pattern

from .peers import Calls, Delivery, Service

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])
QUICK: Any = {"redelivery_delay": 0.0, "max_deliveries": 3, "group": "g"}


def hold(_: Delivery) -> None:
    """Answer nothing."""


def ending(*outcomes: tuple[str, str] | tuple[str, str, float]) -> Service:
    """Make a service whose deliveries end so, one after the other; the rest well.

    Each is an outcome, its reason, and how long it rests where the policy, which draws
    that at random, is not to decide.
    """
    left = list(outcomes)

    def end(delivery: Delivery) -> None:
        delivery.end(*(left.pop(0) if left else ("ack", "")))

    return Service(end)


class Streams(Service):
    """A service whose deliveries are streams."""

    def __call__(self, message: Any, respond: Any) -> Delivery:
        """Take a message."""
        delivery = super().__call__(message, respond)
        delivery.is_stream = True
        return delivery


class Served:
    """An open server, with its stand-in for a Server."""

    def __init__(self, intake: Intake, service: Service) -> None:
        self.intake = intake
        self.service = service

    async def came(self, count: int) -> list[Any]:
        """Wait until so many messages were delivered in all; return their payloads."""
        return [delivery.data for delivery in await self.service.came(count)]


def subscription(given: Any) -> Subscription:
    """Make a Subscription to an event, of a pattern or of one with options."""
    pattern, options = given if isinstance(given, tuple) else (given, {})
    options = dict(options)
    kind = options.pop("kind", "event")
    return Subscription(Pattern.of(pattern), kind, options)


@asynccontextmanager
async def served(
    url: str, *patterns: Any, service: Any = None, limit: int = 100, **options: Any
) -> AsyncIterator[Served]:
    """Serve patterns inside the block; each may be a pair with a handler's options."""
    transport = MQTTTransport(url=url, **options)
    async with served_by(transport, *patterns, service=service, limit=limit) as server:
        yield server


@asynccontextmanager
async def served_by(
    transport: MQTTTransport, *patterns: Any, service: Any = None, limit: int = 100
) -> AsyncIterator[Served]:
    """Serve as above with a transport that may have served before."""
    service = service or Service()
    subscriptions = [subscription(pattern) for pattern in patterns]
    async with transport.serve(subscriptions, service, print, limit=limit) as intake:
        yield Served(intake, service)


@asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncIterator[Calls]:
    """Connect a client of ours inside the block."""
    calls = Calls()
    transport = MQTTTransport(url=url, **options)
    async with transport.connect(calls, calls.statuses.append) as link:
        calls.link = link  # type: ignore[assignment]
        yield calls
