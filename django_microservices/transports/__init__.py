"""The wires. Each lives in its own file, which alone imports its driver."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Transport

__all__ = [
    "JetStreamTransport",
    "MQTTTransport",
    "MemoryTransport",
    "NATSTransport",
    "RabbitMQTransport",
    "RedisStreamsTransport",
    "RedisTransport",
    "TCPTransport",
    "Transport",
]

if TYPE_CHECKING:
    from .jetstream import JetStreamTransport
    from .memory import MemoryTransport
    from .mqtt import MQTTTransport
    from .nats import NATSTransport
    from .rabbitmq import RabbitMQTransport
    from .redis import RedisStreamsTransport, RedisTransport
    from .tcp import TCPTransport
else:
    _FILES = {
        "JetStreamTransport": ".jetstream",
        "MQTTTransport": ".mqtt",
        "MemoryTransport": ".memory",
        "NATSTransport": ".nats",
        "RabbitMQTransport": ".rabbitmq",
        "RedisStreamsTransport": ".redis",
        "RedisTransport": ".redis",
        "TCPTransport": ".tcp",
    }

    def __getattr__(name: str) -> Any:
        """Import a wire's file when it is first named.

        Raises ``ImportError`` with the command that installs a driver that is missing.
        """
        if name not in _FILES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        file = _FILES[name]
        try:
            return getattr(import_module(file, __name__), name)
        except ModuleNotFoundError as error:
            extra = f"django-microservices-kit[{file.removeprefix('.')}]"
            message = f"{name} needs {error.name}: pip install {extra!r}"
            raise ImportError(message) from error
