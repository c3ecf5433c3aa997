"""What our service answers on RabbitMQ beside the rest: wildcards, properties, acks."""

from typing import Any

from django_microservices import event_pattern, message_pattern
from django_microservices.transports.rabbitmq import RabbitMQContext

from .app.handlers import events, record


@message_pattern("user.*")
async def of_a_user(data: Any, context: RabbitMQContext) -> dict[str, Any]:
    """Stand under a wildcard, and tell what the wire knows."""
    wire = context.wire
    return {
        "data": data,
        "exchange": wire.exchange,
        "routing_key": wire.routing_key,
        "pattern": context.pattern,
        "headers": context.headers,
        "priority": wire.properties.priority,
        "delivery_mode": wire.properties.delivery_mode,
        "expiration": wire.properties.expiration,
        "message_id": wire.properties.message_id,
    }


@message_pattern("user.made")
async def made(data: Any) -> str:
    """Stand under a pattern of one's own."""
    return "made"


@event_pattern("audit.#", "audit.*")
async def audit(data: Any, context: RabbitMQContext) -> None:
    """Take an event that two patterns of the handler match."""
    record(context.pattern, data)


@event_pattern("counted")
async def counted(data: Any) -> None:
    """Take an event in the service's own queue."""
    record("counted", data)


@event_pattern("given.back")
async def given_back(data: Any, context: RabbitMQContext) -> None:
    """Give an event back once, and refuse it then."""
    record("given back", data)
    if context.wire.properties.headers and "x-dm-attempts" in (
        context.wire.properties.headers
    ):
        context.reject("enough")
    else:
        context.nack()


@message_pattern("ours.events")
def ours(data: int) -> list[dict[str, Any]]:
    """Return what was recorded, once it is so many: also where Nest answers that."""
    return events(data)
