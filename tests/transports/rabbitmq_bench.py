"""Servers and clients at a real RabbitMQ, for the tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pamqp import commands

from django_microservices import event_pattern
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.server import Server
from django_microservices.transports.rabbitmq import RabbitMQContext, RabbitMQTransport
from django_microservices.wire.messages import new_id
from tests.endpoints.ends import PATIENCE, client_of, server_of, until

from .rabbitmq_peer import Got, Peer


class Bench:
    """A broker, and names that no other test has."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"t{new_id()}"
        self.seen: list[Any] = []

    def at(self, **options: Any) -> RabbitMQTransport:
        """Make a transport."""
        given: Any = {"url": self.url, "redelivery_delay": 0.05} | options
        return RabbitMQTransport(**given)

    def server(self, *functions: Callable[..., Any], **options: Any) -> Server:
        """Make a server of the group that the test is named by."""
        return server_of(self.at(**{"group": self.name, **options}), *functions)

    def noting(self, *patterns: str, who: str = "it") -> Callable[..., Any]:
        """Make a handler of events that notes them."""

        @event_pattern(*(f"{self.name}.{one}" for one in patterns))
        async def noted(data: Any, context: RabbitMQContext) -> None:
            self.seen.append((who, data, context))

        return noted

    @asynccontextmanager
    async def calling(self, **options: Any) -> AsyncIterator[Client]:
        """Give a client."""
        client = client_of(self.at(**options))
        try:
            yield client
        finally:
            await client.aclose()

    async def saw(self, count: int) -> None:
        """Wait until so many events were noted."""
        await until(lambda: len(self.seen) >= count)

    async def buried(self, queue: str) -> Got:
        """Wait for the one message of a queue of dead letters."""
        with self.peer() as peer:
            peer.call(commands.Queue.Declare(queue=queue, durable=True))
            found: list[Got] = []
            async with asyncio.timeout(PATIENCE):
                while not found:
                    await asyncio.sleep(0.01)
                    found = peer.drain(queue)
        (letter,) = found
        return letter

    def peer(self) -> Peer:
        """Give a client of the broker that is none of ours."""
        return Peer(self.url)

    def refusal_of(self, queue: str, **options: Any) -> str:
        """Declare a queue from outside; return the broker's words where it refuses."""
        with self.peer() as peer:
            answer = peer.call(commands.Queue.Declare(queue=queue, **options))
        return "" if isinstance(answer, commands.Queue.DeclareOk) else answer.reply_text
