"""FastStream on uvloop, over any of its brokers.

Arguments: "server" or "client", the kind of broker, and its URL. Its own loggers are
off, as ours is without DEBUG.
"""

import asyncio
import json
import sys
from importlib import import_module
from typing import Any
from urllib.parse import urldefrag

import uvloop

from .commands import PATIENCE, obey

KINDS = {
    "redis": ("redis", "RedisBroker"),
    "redis-streams": ("redis", "RedisBroker"),
    "nats": ("nats", "NatsBroker"),
    "jetstream": ("nats", "NatsBroker"),
    "rabbitmq": ("rabbit", "RabbitBroker"),
    "rabbitmq-acks": ("rabbit", "RabbitBroker"),
}
EVENT, STREAM = "faststream.created", "faststream"
received = 0


def make(kind: str, url: str) -> Any:
    """Make a broker."""
    module, name = KINDS[kind]
    more = {"max_connections": 1000} if module == "redis" else {}
    broker = getattr(import_module(f"faststream.{module}"), name)
    return broker(url, logger=None, **more)


def event_options(kind: str) -> dict[str, Any]:
    """Return where a server listens for events."""
    if kind == "redis-streams":
        redis = import_module("faststream.redis")
        return {"stream": redis.StreamSub(EVENT, group="benchmark", consumer="one")}
    if kind == "jetstream":
        return {"subject": EVENT, "stream": STREAM, "durable": "benchmark"}
    return {"": EVENT}


async def serve(kind: str, url: str) -> None:
    """Do the sum."""
    broker = make(kind, url)

    async def accumulate(data: list[int]) -> int:
        return sum(data)

    async def count(data: int) -> int:
        return received

    async def created(data: Any) -> None:
        global received  # noqa: PLW0603 - the one thing that is counted
        received += 1

    options = event_options(kind)
    name = options.pop("", None)
    broker.subscriber("faststream.sum")(accumulate)
    broker.subscriber("faststream.received")(count)
    broker.subscriber(*([name] if name else []), **options)(created)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with broker:
        await broker.start()
        print(json.dumps({"id": 0}), flush=True)
        await ended.wait()


class Client:
    """Its verbs under the names that the driver uses."""

    def __init__(self, kind: str, broker: Any) -> None:
        self.confirms = kind in {"redis-streams", "jetstream", "rabbitmq-acks"}
        self._broker = broker
        self._to = {"stream": EVENT} if kind == "redis-streams" else {"": EVENT}
        if kind == "jetstream":
            self._to["stream"] = STREAM

    async def send(self, pattern: Any, data: Any) -> Any:
        """Send a request."""
        subject = f"faststream.{pattern['cmd']}"
        answer = await self._broker.request(data, subject, timeout=PATIENCE)
        return await answer.decode()

    async def emit(self, pattern: Any, data: Any) -> None:
        """Emit an event."""
        to = dict(self._to)
        name = to.pop("", None)
        await self._broker.publish(data, *([name] if name else []), **to)


async def call(kind: str, url: str) -> None:
    """Obey the driver."""
    async with make(kind, url) as broker:
        await obey(Client(kind, broker))


role, kind, url = sys.argv[1:]
url = urldefrag(url).url.partition("?")[0]
uvloop.run(serve(kind, url) if role == "server" else call(kind, url))
