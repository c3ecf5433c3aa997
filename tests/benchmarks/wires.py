"""The wires that are measured: where each server listens, and how its ends are told."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.brokers.mosquitto import Mosquitto
from tests.brokers.nats import NATS
from tests.brokers.ports import broker_port
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.redis import Redis
from tests.brokers.server import Server
from tests.interop.wires import at

TRANSPORTS = "django_microservices.transports"


class Place(NamedTuple):
    """Where the two processes of a candidate meet.

    ``nest`` is what Nest's scripts are told, ``django`` what ``settings.py`` reads;
    ``port`` is that of a server which listens itself, ``broker`` one to be closed;
    ``peer`` is told to the modules of ``peers/`` where ``url`` is not all.
    """

    url: str
    nest: dict[str, Any]
    django: dict[str, Any]
    port: int | None = None
    broker: Server[Any] | None = None
    peer: str = ""


@dataclass(frozen=True)
class Wire:
    """A wire by name; ``place(name)`` makes a place for the candidate of that name."""

    name: str
    place: Callable[[str], Place]


def _tcp(_: str) -> Place:
    port = broker_port()
    where = {"host": "127.0.0.1", "port": port}
    url = f"tcp://127.0.0.1:{port}"
    return Place(url, {"transport": "TCP", **where}, _ends(where), port)


def _ends(options: dict[str, Any], transport: str = "TCPTransport") -> dict[str, Any]:
    return {
        "transport": f"{TRANSPORTS}.{transport}",
        "server": options,
        "client": options,
    }


def _own(kind: type[Server[Any]], transport: str) -> Callable[[str], Place]:
    """Give each candidate a broker of its own: there every service gets every message.

    An idle one costs nothing.
    """

    def place(_: str) -> Place:
        broker = kind.open()
        options = {"url": broker.url}
        ends = _ends(options, transport)
        return Place(broker.url, at(broker), ends, broker=broker)

    return place


def _queue(
    nest: dict[str, Any], ours: dict[str, Any], peer: str = ""
) -> Callable[[str], Place]:
    """Give each candidate a queue of one RabbitMQ, and the options of a variant."""

    def place(name: str) -> Place:
        broker = _rabbitmq()
        ends = _ends({"url": broker.url, "queue": name, **ours}, "RabbitMQTransport")
        told = at(broker, queue=name, **nest)
        return Place(broker.url, told, ends, peer=f"{broker.url}{peer}#{name}")

    return place


@functools.cache
def _rabbitmq() -> RabbitMQ:
    """Start it once, since that takes seconds; it ends with this process."""
    return RabbitMQ.open()


TCP = Wire("tcp", _tcp)
REDIS = Wire("redis", _own(Redis, "RedisTransport"))
STREAMS = Wire("redis-streams", _own(Redis, "RedisStreamsTransport"))
NATS_CORE = Wire("nats", _own(NATS, "NATSTransport"))
JETSTREAM = Wire("jetstream", _own(NATS, "JetStreamTransport"))
MQTT = Wire("mqtt", _own(Mosquitto, "MQTTTransport"))
RABBITMQ = Wire("rabbitmq", _queue({}, {"nest_delivery": True}))
CONFIRMED = Wire(
    "rabbitmq-acks",
    _queue({"noAck": False, "prefetchCount": 100, "persistent": True}, {}, "?acks"),
)
"""With acknowledgements, confirms and persistent messages, our own defaults."""

WIRES = (TCP, REDIS, STREAMS, NATS_CORE, JETSTREAM, MQTT, RABBITMQ, CONFIRMED)
