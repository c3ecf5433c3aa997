"""The memory transport: both ends on one loop, with the real codec between them."""

import asyncio
from typing import Any, Self

import pytest

from django_microservices.exceptions import ConnectionLost, NotConnected
from django_microservices.transports import MemoryTransport
from django_microservices.transports.memory import Link
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern

from .peers import Delivery, Service

WIRE = MemoryTransport()


def message(data: Any = b"1", id_: Any = "7", **more: Any) -> Message:
    """Make a message as a client does."""
    return Message(Pattern.of({"b": 1, "a": 2}), data, id_, **more)


def hold(_: Delivery) -> None:
    """Answer nothing."""


class Both:
    """A server and a client that have met."""

    def __init__(self, service: Service, wire: MemoryTransport = WIRE) -> None:
        self.service = service
        self.replies: list[Reply] = []
        self.serving = wire.serve([], service, print, limit=1)
        self.connecting = wire.connect(self.replies.append, print)

    async def __aenter__(self) -> Self:
        """Serve, and connect."""
        self.intake = await self.serving.__aenter__()
        self.link: Link = await self.connecting.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Leave in turn."""
        await self.connecting.__aexit__(None, None, None)
        await self.serving.__aexit__(None, None, None)


async def test_request() -> None:
    """A request is delivered in the very call, and its answer received."""
    async with Both(Service(at_once=True)) as both:
        assert both.link.publish(message(b"[1]")) is None
        (reply,) = both.replies
        assert (reply.id, bytes(reply.data or b""), reply.last) == ("7", b"[1]", True)


async def test_what_arrives() -> None:
    """What arrives went through the codec: pattern, payload, headers, patience."""
    async with Both(Service(hold)) as both:
        headers = {"a": "b"}
        both.link.publish(message(UNSET, 7, headers=headers, timeout=1.5))
        (delivery,) = both.service.deliveries
        arrived = delivery.message
        assert arrived.pattern.json == b'{"b":1,"a":2}'
        assert (arrived.data, arrived.id) == (UNSET, 7)
        assert (arrived.headers, arrived.timeout) == (headers, 1.5)
        assert arrived.headers is not headers


async def test_error() -> None:
    """An error and a missing handler arrive as such."""
    async with Both(Service(hold)) as both:
        both.link.publish(message())
        (delivery,) = both.service.deliveries
        delivery.respond(Reply("7", None, b'{"a":1}'))
        delivery.respond(Reply("7", missing=True))
        error, missing = both.replies
        assert (error.error, error.missing) == (b'{"a":1}', False)
        assert missing.missing


async def test_event_is_done() -> None:
    """The awaitable of an event ends when its handlers have."""
    async with Both(Service(hold)) as both:
        waiting = asyncio.ensure_future(both.link.publish(message(id_=UNSET)))
        await asyncio.sleep(0)
        (delivery,) = both.service.deliveries
        assert delivery.message.pattern.json == b'"{\\"a\\":2,\\"b\\":1}"'
        assert not waiting.done()
        delivery.end()
        await waiting


async def test_event_that_is_done_at_once() -> None:
    """So it does where they have ended already."""
    async with Both(Service(at_once=True)) as both:
        await both.link.publish(message(id_=UNSET))


async def test_event_that_nobody_awaits_any_more() -> None:
    """Whoever gave up waiting does not disturb the end."""
    async with Both(Service(hold)) as both:
        waiting = asyncio.ensure_future(both.link.publish(message(id_=UNSET)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        both.service.deliveries[0].end()


async def test_cancel() -> None:
    """What nobody awaits is cancelled, what was answered is forgotten."""
    async with Both(Service(hold)) as both:
        for id_ in ("a", "b"):
            both.link.publish(message(id_=id_))
        first, second = both.service.deliveries
        both.link.forget("a", answered=False)
        both.link.forget("b", answered=True)
        both.link.forget("c", answered=False)
        assert first.cancelled.is_set()
        assert not second.cancelled.is_set()


async def test_pause() -> None:
    """Draining waits for what was accepted."""
    async with Both(Service(hold)) as both:
        await both.intake.pause()
        both.link.publish(message())
        both.link.publish(message(id_="8"))
        draining = asyncio.ensure_future(both.intake.pause())
        await asyncio.sleep(0)
        for delivery in both.service.deliveries:
            assert not draining.done()
            delivery.answer()
        await asyncio.wait_for(draining, 10)


async def test_end_of_the_server() -> None:
    """A client is told when its server has gone."""
    both = Both(Service())
    async with both:
        await both.serving.__aexit__(None, None, None)
        reason = await asyncio.wait_for(both.link.closed, 10)
        assert isinstance(reason, ConnectionLost)
        both.link.end(None)
        both.serving = WIRE.serve([], both.service, print, limit=1)
        await both.serving.__aenter__()
    assert both.intake.closed.result() is None


async def test_client_that_left() -> None:
    """Nothing of a client stays with the server when it has gone."""
    async with Both(Service()) as both:
        async with WIRE.connect(print, print) as link:
            pass
        both.link.publish(message())
    assert not link.closed.done()


async def test_names() -> None:
    """A client meets the server of its name, and no other."""
    async with Both(Service()) as both:
        assert both.intake.address == "memory:default"
        assert both.intake.driver is both.intake
        assert both.link.driver is both.intake
        assert WIRE.is_served()
        other = MemoryTransport(name="other")
        assert not other.is_served()
        with pytest.raises(NotConnected, match="memory transport 'other'"):
            await other.connect(print, print).__aenter__()
    assert not WIRE.is_served()


async def test_other_loops() -> None:
    """A server of another loop is none of ours."""

    def elsewhere() -> bool:
        async def ask() -> bool:
            return WIRE.is_served()

        return asyncio.run(ask())

    async with Both(Service()):
        assert not await asyncio.to_thread(elsewhere)
