"""What our service answers on NATS beside the rest: wildcards, headers, queues."""

from typing import Any

from django_microservices import event_pattern, message_pattern
from django_microservices.transports.nats import NATSContext

from .app.handlers import events, record


@message_pattern("user.*")
async def of_a_user(data: Any, context: NATSContext) -> dict[str, Any]:
    """Stand under a wildcard, and tell what the wire knows."""
    return {
        "data": data,
        "subject": context.wire.subject,
        "pattern": context.pattern,
        "headers": context.headers,
    }


@message_pattern("user.made")
async def made(data: Any) -> str:
    """Stand under a pattern of one's own."""
    return "made"


@event_pattern("audit.>", "audit.*")
async def audit(data: Any, context: NATSContext) -> None:
    """Take an event that two patterns of the handler match."""
    record(context.pattern, data)


@event_pattern("counted")
async def counted(data: Any) -> None:
    """Take an event in the service's own queue group."""
    record("counted", data)


@event_pattern("shared", queue="together")
async def shared(data: Any) -> None:
    """Take an event in a queue group that others are in as well."""
    record("shared", data)


@message_pattern("ours.events")
def ours(data: int) -> list[dict[str, Any]]:
    """Return what was recorded, once it is so many: also where Nest answers that."""
    return events(data)
