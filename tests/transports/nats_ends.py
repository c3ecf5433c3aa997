"""Both halves of the NATS wire, without a Server and a Client around them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from django_microservices.transports.nats import NATSTransport
from django_microservices.transports.nats.intake import Intake
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import Pattern

from .peers import Calls, Service


def subscriptions(*patterns: Any, **options: Any) -> list[Subscription]:
    """Make what a server subscribes to."""
    return [Subscription(Pattern.of(each), "request", options) for each in patterns]


@asynccontextmanager
async def serving(
    url: str,
    patterns: Sequence[Any],
    service: Any = None,
    *,
    limit: int = 100,
    wire: type[NATSTransport] = NATSTransport,
    **options: Any,
) -> AsyncIterator[Intake]:
    """Serve patterns; what comes goes to ``service``, which echoes it by default."""
    transport = wire(url=url, **options)
    wanted = [
        each if isinstance(each, Subscription) else subscriptions(each)[0]
        for each in patterns
    ]
    async with transport.serve(
        wanted, service or Service(), lambda _: None, limit=limit
    ) as intake:
        yield intake


@asynccontextmanager
async def linked(
    url: str, wire: type[NATSTransport] = NATSTransport, **options: Any
) -> AsyncIterator[Calls]:
    """Connect a client's half; the replies are kept."""
    calls = Calls()
    transport = wire(url=url, **options)
    async with transport.connect(calls, calls.statuses.append) as link:
        calls.link = link  # type: ignore[assignment]
        yield calls
