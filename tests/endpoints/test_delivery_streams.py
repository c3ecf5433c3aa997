"""A message that is answered item by item."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from django_microservices import UNSET, event_pattern
from django_microservices.endpoints.streaming import TURN
from django_microservices.wire.messages import Reply
from tests.endpoints.ends import until
from tests.endpoints.peer import INTERNAL, LATE, Gate, Start


def sync_stream(data: int) -> Iterator[int]:
    """Stream from a thread."""
    yield from range(data)


async def async_stream(data: int) -> AsyncIterator[int]:
    """Stream from the loop."""
    for number in range(data):
        yield number


async def returned_list(data: int) -> Iterable[int]:
    """Return what can be iterated."""
    return range(data)


class Numbers:
    """Async-iterable, and no generator."""

    def __init__(self, count: int) -> None:
        self.numbers = iter(range(count))

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> int:
        try:
            return next(self.numbers)
        except StopIteration:
            raise StopAsyncIteration from None


async def returned_iterator(data: int) -> AsyncIterator[int]:
    """Return what can be iterated on the loop."""
    return Numbers(data)


STREAMS = [sync_stream, async_stream, returned_list, returned_iterator]


@pytest.mark.parametrize("handler", STREAMS)
async def test_stream(start: Start, handler: Any) -> None:
    """Each item is a reply, and the end is one of its own."""
    peer = await start(handler)
    delivery = peer.send(data=b"100")
    await until(lambda: delivery.outcome)
    assert peer.items == [*range(100)]
    assert [reply.last for reply in peer.replies] == [False] * 100 + [True]
    assert (peer.replies[-1].data, peer.replies[-1].error) == (None, None)
    assert delivery.outcome == "ack"


async def test_item_without_a_value(start: Start) -> None:
    """UNSET is an item without a value."""

    async def stream(data: Any) -> AsyncIterator[Any]:
        yield UNSET

    peer = await start(stream)
    await peer.ask()
    assert [(r.data, r.last) for r in peer.replies] == [(None, False), (None, True)]


@pytest.mark.parametrize("handler", STREAMS)
async def test_stream_of_an_event(start: Start, handler: Any) -> None:
    """An event's generator runs to its end, and sends nothing."""
    peer = await start(handler, kind=event_pattern)
    delivery = peer.send(data=b"3", id=UNSET)
    await until(lambda: delivery.outcome)
    assert (peer.replies, delivery.outcome) == ([], "ack")


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), SystemExit("secret")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_failing_stream(
    start: Start, error: BaseException, *, is_async: bool
) -> None:
    """An error ends a stream, after the items that came before it."""

    def stream(data: Any) -> Iterator[int]:
        yield 1
        raise error

    async def astream(data: Any) -> AsyncIterator[int]:
        yield 1
        raise error

    peer = await start(astream if is_async else stream)
    assert await peer.ask() == INTERNAL
    assert peer.items == [1]


async def test_stream_whose_await_was_cancelled(start: Start) -> None:
    """A stream that awaited what somebody else cancelled is answered."""

    async def stream(data: Any) -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    assert await (await start(stream)).ask() == INTERNAL


async def test_item_that_cannot_travel(start: Start) -> None:
    """An item that cannot be encoded ends the stream, and its generator."""
    closed: list[bool] = []

    async def stream(data: Any) -> AsyncIterator[Any]:
        try:
            yield object()
            yield 2
        finally:
            closed.append(True)

    assert await (await start(stream)).ask() == INTERNAL
    assert closed == [True]


async def test_backpressure(start: Start) -> None:
    """The next item is not asked for before the peer has read the last."""
    made: list[int] = []
    gate = asyncio.Event()

    async def stream(data: Any) -> AsyncIterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    peer = await start(stream)

    def respond(reply: Reply) -> Any:
        peer.replies.append(reply)
        return None if reply.last else gate.wait()

    peer.respond = respond
    delivery = peer.send()
    await until(lambda: peer.replies)
    await asyncio.sleep(0.01)
    assert made == [0]
    gate.set()
    await until(lambda: delivery.outcome)
    assert made == [0, 1, 2]


async def test_peer_that_leaves_between_items(start: Start) -> None:
    """A peer that leaves while an item is sent is sent no other."""
    peer = await start(async_stream)
    left: list[Any] = []

    def respond(reply: Reply) -> None:
        peer.replies.append(reply)
        left[0].cancel()

    peer.respond = respond
    left.append(peer.send(data=b"3"))
    await until(lambda: not peer.server.in_flight)
    await asyncio.sleep(0)
    assert peer.items == [0]


async def test_stream_leaves_the_loop_its_turns(start: Start) -> None:
    """A generator that never awaits does not hold the loop."""

    async def endless(data: Any) -> AsyncIterator[int]:
        while True:
            yield 1

    peer = await start(endless)
    delivery = peer.send()
    await until(lambda: len(peer.replies) > 2 * TURN)
    delivery.cancel()
    await until(lambda: not peer.server.in_flight)


@pytest.mark.parametrize("is_async", [False, True])
async def test_timeout_of_an_item(start: Start, gate: Gate, *, is_async: bool) -> None:
    """A stream's timeout bounds each item; one that hangs is answered at once."""

    def stream(data: Any) -> Iterator[int]:
        yield 1
        gate.wait()
        yield 2

    async def astream(data: Any) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    peer = await start(astream if is_async else stream, options={"timeout": 0.05})
    assert await peer.ask() == LATE
    assert peer.items == [1]
    gate.go_on.set()


async def test_callers_patience_does_not_bound_a_stream(start: Start) -> None:
    """The caller's timeout is for each item, and its own business."""

    async def stream(data: Any) -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0.02)
            yield number

    peer = await start(stream)
    assert await peer.ask(timeout=0.03) is UNSET
    assert peer.items == [0, 1, 2]


async def test_caller_gave_up_before(start: Start) -> None:
    """A stream whose caller's time was used up before does not begin."""
    begun: list[Any] = []

    async def stream(data: Any) -> AsyncIterator[int]:
        begun.append(data)
        yield 1

    peer = await start(stream)
    assert await peer.ask(timeout=0.0) == LATE
    assert begun == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_cancelled_stream(start: Start, *, is_async: bool) -> None:
    """Cancelling a stream closes its generator, whose ``finally`` runs."""
    closed = threading.Event()

    def stream(data: Any) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async def astream(data: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    peer = await start(astream if is_async else stream)
    delivery = peer.send()
    await until(lambda: peer.replies)
    delivery.cancel()
    await until(closed.is_set)
    assert not any(reply.last for reply in peer.replies)


async def test_stream_that_ignores_its_cancelling(start: Start) -> None:
    """A generator that yields on after it was cancelled is closed."""
    closed = asyncio.Event()

    async def stubborn(data: Any) -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            while True:
                yield 2
        finally:
            closed.set()

    peer = await start(stubborn)
    delivery = peer.send()
    await until(lambda: peer.replies)
    delivery.cancel()
    await asyncio.wait_for(closed.wait(), 10)
    assert peer.items == [1]


async def test_sync_stream_under_async_middleware(start: Start) -> None:
    """A sync generator may stand beneath async middleware."""

    def watched(get_response: Any) -> Any:
        async def layer(context: Any) -> Any:
            return await get_response(context)

        return layer

    peer = await start(sync_stream, middleware=(watched,))
    await peer.ask(data=b"3")
    assert peer.items == [0, 1, 2]


async def plain_list() -> Any:
    """Give a list."""
    return [0, 1]


async def plain_iterator() -> Any:
    """Give what is no generator."""
    return Numbers(2)


@pytest.mark.parametrize("items", [plain_list, plain_iterator])
async def test_stream_of_middleware(start: Start, items: Any) -> None:
    """Middleware that answers a stream itself may return anything to iterate."""

    def instead(get_response: Any) -> Any:
        async def layer(context: Any) -> Any:
            return await items()

        return layer

    peer = await start(async_stream, middleware=(instead,))
    await peer.ask()
    assert peer.items == [0, 1]
