"""Both halves of JetStream in a stream of the test's own, and looks at the broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from typing import Any

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from django_microservices.transports.jetstream import JetStreamTransport
from django_microservices.transports.jetstream.intake import JetStreamIntake
from django_microservices.wire.messages import UNSET, Subscription, new_id
from django_microservices.wire.patterns import Pattern

from .nats_ends import linked
from .nats_peer import Peer
from .peers import Calls, Service

SOON = {"redelivery_delay": 0.01, "max_deliveries": 3, "storage": "memory"}


def saying(*words: str) -> Service:
    """End deliveries with these outcomes, one after the other, then with "ack"."""
    left = list(words)
    return Service(lambda delivery: delivery.end(left.pop(0) if left else "ack", "why"))


class Place:
    """A stream, and who uses it; ``url`` is the broker's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stream = f"s{new_id()}"
        self.options: dict[str, Any] = {"stream": self.stream}

    @asynccontextmanager
    async def serving(
        self,
        patterns: Sequence[str],
        service: Any = None,
        *,
        limit: int = 100,
        kind: str = "event",
        **options: Any,
    ) -> AsyncIterator[JetStreamIntake]:
        """Serve patterns inside the block."""
        wanted = [Subscription(Pattern.of(pattern), kind) for pattern in patterns]
        wire = JetStreamTransport(
            url=self.url, **{"group": "orders", **self.options, **SOON, **options}
        )
        async with wire.serve(
            wanted, service or Service(), lambda _: None, limit=limit
        ) as intake:
            yield intake

    def linked(self, **options: Any) -> AbstractAsyncContextManager[Calls]:
        """Connect a client's half."""
        return linked(self.url, JetStreamTransport, **self.options, **options)

    async def emit(self, pattern: str, *data: bytes, **more: Any) -> None:
        """Emit events, each confirmed."""
        async with self.linked() as calls:
            for each in data:
                await calls.send(pattern, each, UNSET, **more)


class Look:
    """What the broker has, seen by nats-py."""

    def __init__(self, peer: Peer, stream: str) -> None:
        self.peer = peer
        self.stream = stream
        self.jetstream: JetStreamContext = peer.client.jetstream()

    async def count(self, stream: str | None = None) -> int:
        """Count what a stream holds."""
        info = await self.jetstream.stream_info(stream or self.stream)
        return info.state.messages

    async def letters(self) -> list[RawStreamMsg]:
        """Return the dead letters."""
        name = f"{self.stream}-dead"
        count = await self.count(name)
        return [await self.jetstream.get_msg(name, n + 1) for n in range(count)]

    async def buried(self, count: int = 1) -> list[RawStreamMsg]:
        """Wait for dead letters."""
        async with asyncio.timeout(10):
            while len(letters := await self.letters()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return letters

    async def waiting(self, consumer: str) -> tuple[int, int]:
        """Count what a consumer was not yet given, and what it did not acknowledge."""
        info = await self.jetstream.consumer_info(self.stream, consumer)
        return info.num_pending or 0, info.num_ack_pending or 0

    async def settled(self, consumer: str) -> None:
        """Return when a consumer has acknowledged everything."""
        async with asyncio.timeout(10):
            while await self.waiting(consumer) != (0, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @cached_property
    def words(self) -> "asyncio.Queue[bytes]":
        """What JetStream is told of messages, once :meth:`listen` was called."""
        return asyncio.Queue()

    async def listen(self) -> None:
        """Hear what JetStream is told of messages of this stream."""

        async def hear(message: Msg) -> None:
            self.words.put_nowait(message.data)

        await self.peer.client.subscribe(f"$JS.ACK.{self.stream}.>", cb=hear)
        await self.peer.settled()

    async def word(self) -> bytes:
        """Wait for the next such word."""
        return await asyncio.wait_for(self.words.get(), 10)


@asynccontextmanager
async def looking(place: Place) -> AsyncIterator[Look]:
    """Look at what the broker has of a place."""
    async with Peer(place.url) as peer:
        yield Look(peer, place.stream)
