"""What the environment says of the demo; read by both services and by their starter.

``DEMO_HTTP_PORT`` and ``DEMO_TCP_PORT`` are the ports of the two services on loopback,
``DEMO_DATABASE`` is the users' SQLite file. ``BROKER`` names the broker that messages
go through (``BROKERS`` has the names; empty: none, the services talk over TCP), and
``BROKER_URL`` says where it is: else it is on this machine, on ``DEMO_BROKER_PORT``.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
LAST_PORT = 65_535


class Broker(NamedTuple):
    """A kind of broker: the name of its transport, its scheme and its usual port."""

    transport: str
    scheme: str
    port: int


BROKERS = {
    "redis": Broker("RedisTransport", "redis", 6379),
    "nats": Broker("NATSTransport", "nats", 4222),
    "rabbitmq": Broker("RabbitMQTransport", "amqp", 5672),
    "mqtt": Broker("MQTTTransport", "mqtt", 1883),
}


def http_port() -> int:
    """Return the port of the gateway's page."""
    return _port("DEMO_HTTP_PORT", 8000)


def tcp_port() -> int:
    """Return the port on which the users service answers messages without a broker."""
    return _port("DEMO_TCP_PORT", 3001)


def broker_port() -> int:
    """Return the port of a broker on this machine."""
    return _port("DEMO_BROKER_PORT", BROKERS[broker_name()].port)


def broker_name() -> str:
    """Return the broker's name, or an empty text.

    Raises ``ImproperlyConfigured`` for a name that is none.
    """
    name = os.environ.get("BROKER", "")
    if name not in {"", "tcp", *BROKERS}:
        message = f"BROKER={name}: it is one of {', '.join(BROKERS)}, or empty."
        raise ImproperlyConfigured(message)
    return "" if name == "tcp" else name


def has_broker_url() -> bool:
    """Whether the broker is somebody else's to run."""
    return bool(os.environ.get("BROKER_URL"))


def broker_url() -> str:
    """Return where the broker is."""
    local = f"{BROKERS[broker_name()].scheme}://{HOST}:{broker_port()}"
    return os.environ.get("BROKER_URL") or local


def wire() -> dict[str, Any]:
    """Return how the services reach each other: an entry of SERVERS and of CLIENTS.

    Nothing else of the demo knows which wire it is.
    """
    name = broker_name()
    if not name:
        return {"OPTIONS": {"host": HOST, "port": tcp_port()}}
    broker = BROKERS[name]
    return {
        "TRANSPORT": f"django_microservices.transports.{broker.transport}",
        "OPTIONS": {"url": broker_url()},
    }


def database() -> str:
    """Return the path of the users' database."""
    return os.environ.get("DEMO_DATABASE") or str(HERE / "users.sqlite3")


def _port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LAST_PORT):
        message = f"{name}={text}: a port is a number from 1 to {LAST_PORT}."
        raise ImproperlyConfigured(message)
    return int(text)
