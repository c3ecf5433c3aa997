"""Nest's options for the brokers of the tests.

A Nest service and a Nest client by the broker of a fixture::

    redis = start_server(Redis)                       # or redis_server, private_redis
    service = start_nest_server(**at(redis), handlers=[{"pattern": "user.*"}])
    answer = await nest_client.send(at(redis), "echo", "👍")

Every service of a Redis, NATS or MQTT server without queue groups gets every message,
so that two services with the same patterns, as Nest's and ours, each need a server of
their own, which takes 30 ms to start; on RabbitMQ they need each a ``queue``.

What every Nest service here answers is in ``nest/server.mjs``; beside the cases of TCP:
``context`` returns what Nest's context of this wire knows, ``events`` (with a number:
so many are awaited) what the handlers of events got, and ``events.wire`` that with the
context. ``handlers`` adds handlers: ``{"pattern": ..., "event": True}`` records, one
without ``event`` answers; ``extras`` are those of the decorator (``{"queue": ...}``,
``{"qos": 1}``); ``settle`` says what becomes of a message on RabbitMQ with
``noAck=False``: ack (the default, also of all the other handlers), nack, requeue, none.
"""

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from tests.brokers.mosquitto import Mosquitto
from tests.brokers.nats import NATS
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.redis import Redis
from tests.brokers.server import Server

QUEUE = "nest"

Way = dict[str, Any]
"""A transport of Nest's by its name, and Nest's options for it."""


def at(server: Server[Any], **options: Any) -> Way:
    """Return Nest's transport and options for a broker, and ``options`` beside them.

    TLS is to be said in Nest's way: ``tls={"ca": ...}``, NATS ``tls={"caFile": ...}``,
    MQTT ``ca=...``, RabbitMQ ``socketOptions={"connectionOptions": {"ca": ...}}``.
    """
    return {**_ways[type(server)](urlsplit(server.url), server.url), **options}


def _redis(parts: SplitResult, url: str) -> Way:
    options = {"transport": "REDIS", "host": parts.hostname, "port": parts.port}
    return options | ({"password": unquote(parts.password)} if parts.password else {})


def _nats(parts: SplitResult, url: str) -> Way:
    options = {"transport": "NATS", "servers": f"{parts.hostname}:{parts.port}"}
    if parts.username and parts.password:
        options |= {"user": unquote(parts.username), "pass": unquote(parts.password)}
    return options


def _mqtt(parts: SplitResult, url: str) -> Way:
    return {"transport": "MQTT", "url": url}


def _rabbitmq(parts: SplitResult, url: str) -> Way:
    return {"transport": "RMQ", "urls": [url], "queue": QUEUE}


_ways = {Redis: _redis, NATS: _nats, Mosquitto: _mqtt, RabbitMQ: _rabbitmq}
