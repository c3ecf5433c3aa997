"""Handlers of wildcards, beside those of ``app``: Redis' globs."""

from typing import Any

from django_microservices import event_pattern, message_pattern
from django_microservices.transports.redis import RedisContext

from .app.handlers import record


@message_pattern("user.*")
def user(data: Any, context: RedisContext) -> dict[str, Any]:
    """Say what is known of a message that a glob brought."""
    return {
        "data": data,
        "channel": context.wire.channel,
        "pattern": context.pattern,
        "headers": context.headers,
    }


@message_pattern("user.made")
def made(data: Any) -> str:
    """Answer for one channel that the glob matches as well."""
    return "made"


@event_pattern("audit.*", "audit.[ab]")
def audit(data: Any, context: RedisContext) -> None:
    """Take an event that comes twice, by two patterns."""
    record(context.wire.channel, data)
