"""Both halves of the RabbitMQ transport at a scripted broker, for their tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pamqp import commands, header

from django_microservices.transports.rabbitmq import RabbitMQTransport
from django_microservices.transports.rabbitmq.intake import Intake
from django_microservices.transports.rabbitmq.link import Link
from django_microservices.wire.codecs import encode
from django_microservices.wire.messages import UNSET, Message, Reply, Subscription
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status

from .scripted_broker import Client, ScriptedBroker, eventually

Ack, Nack, Reject = commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject
REPLY_TO = (
    "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA2ODc4MTMzNAAAcEoAAAAAaS8eQg=="
    ".a2tra2tra2tra2tra2traw=="
)
REPLIES, COPIES = 1, 2  # channels of the publishing connection
EVENT = b'{"pattern":"created","data":1}'
REQUEST = b'{"pattern":"sum","data":[1],"id":"a1"}'
Publish, Header = commands.Basic.Publish, header.ContentHeader
REQUESTS, EVENTS = 1, 2  # the channels, in the order in which they are opened
BLOCKED = commands.Connection.Blocked("low on memory")
UNBLOCKED = commands.Connection.Unblocked()


class Delivery:
    """What a server makes of a message: it ends when the test says so."""

    def __init__(self, message: Message, respond: Any) -> None:
        self.message = message
        self.respond = respond
        self.outcome: str | None = None
        self.reason = ""
        self.delay: float | None = None
        self.callback: Any = None

    def when_done(self, callback: Any) -> None:
        """Keep the callback, or call it."""
        self.callback = callback
        if self.outcome is not None:
            callback(self)

    def end(self, outcome: str, reason: str = "", delay: float | None = None) -> None:
        """Be done."""
        self.outcome, self.reason, self.delay = outcome, reason, delay
        if self.callback is not None:
            self.callback(self)

    def answer(self, value: Any = 6, *, last: bool = True) -> Any:
        """Respond; the last answer ends it."""
        waiting = self.respond(Reply(self.message.id, encode(value), None, last))
        if last:
            self.end("ack")
        return waiting

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.end("ack" if self.message.id is not UNSET else "retry", "cancelled")


class Served:
    """An intake, what it delivered, and both of its connections as the broker's."""

    intake: Intake
    consuming: Client
    publishing: Client

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.statuses: list[Status] = []
        self.at_once = ""

    def deliver(self, message: Message, respond: Any) -> Any:
        """Take a message."""
        delivery = Delivery(message, respond)
        self.deliveries.append(delivery)
        if self.at_once:
            delivery.outcome = self.at_once
        return delivery

    async def arrived(self, count: int = 1) -> Delivery:
        """Wait for so many messages; return the last of them."""
        await eventually(lambda: len(self.deliveries) >= count)
        return self.deliveries[count - 1]

    def copies(self) -> list[commands.Basic.Properties]:
        """Return what was published beside answers."""
        told = self.publishing.told
        return [v.properties for c, v in told if c == COPIES and isinstance(v, Header)]


@asynccontextmanager
async def serving(
    broker: ScriptedBroker, *patterns: str, limit: int = 10, **options: Any
) -> AsyncIterator[Served]:
    """Consume inside the block."""
    served = Served()
    given: Any = {"url": broker.url, "group": "shop", "redelivery_delay": 0} | options
    subscriptions = [Subscription(Pattern.of(one), "event") for one in patterns]
    transport = RabbitMQTransport(**given)
    number = len(broker.clients)
    async with transport.serve(
        subscriptions, served.deliver, served.statuses.append, limit=limit
    ) as served.intake:
        served.consuming = await broker.client(number)
        served.publishing = await broker.client(number + 1)
        yield served


class Calls:
    """A link with what it received, and how its status changed."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.statuses: list[Status] = []
        self.link: Link = None  # type: ignore[assignment]

    def request(self, id_: str = "a1", **more: Any) -> Any:
        """Publish a request."""
        return self.link.publish(Message(Pattern.of("sum"), b"[1]", id_, **more))

    def event(self, pattern: str = "created", **more: Any) -> Any:
        """Publish an event."""
        return self.link.publish(Message(Pattern.of(pattern), b"1", **more))

    def confirmed(self, **more: Any) -> "asyncio.Task[None]":
        """Publish an event, and wait for its confirm."""
        return asyncio.ensure_future(self.event(**more))


@asynccontextmanager
async def calling(broker: ScriptedBroker, **options: Any) -> AsyncIterator[Calls]:
    """Connect to the broker inside the block."""
    calls = Calls()
    transport = RabbitMQTransport(url=broker.url, **options)
    async with transport.connect(calls.replies.append, calls.statuses.append) as link:
        calls.link = link
        yield calls
