"""Handlers of wildcards, beside those of ``app``: levels of MQTT."""

from typing import Any

from django_microservices import event_pattern, message_pattern
from django_microservices.transports.mqtt import MQTTContext

from .app.handlers import record


@message_pattern("user/+")
def user(data: Any, context: MQTTContext) -> dict[str, Any]:
    """Say what is known of a message that a wildcard brought."""
    return {
        "data": data,
        "topic": context.wire.topic,
        "qos": context.wire.qos,
        "pattern": context.pattern,
        "headers": context.headers,
    }


@message_pattern("user/made")
def made(data: Any) -> str:
    """Answer for one topic that the wildcard matches as well."""
    return "made"


@event_pattern("audit/+", "audit/#", "+/a", qos=2)
def audit(data: Any, context: MQTTContext) -> None:
    """Take an event that comes by several filters."""
    record(f"{context.wire.topic} {context.wire.qos}", data)
