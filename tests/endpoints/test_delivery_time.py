"""How long a message may take on the server, and what ends it."""

import asyncio
import contextlib
from typing import Any

import pytest

from django_microservices import UNSET, MessageContext, event_pattern
from django_microservices.wire.codecs import decode
from tests.endpoints.ends import until
from tests.endpoints.peer import LATE, Gate, Start, async_handler


async def test_caller_gave_up_on_an_async_handler(start: Start) -> None:
    """An async handler ends when its caller's time is up."""
    cancelled = asyncio.Event()

    async def hang(data: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    peer = await start(hang)
    assert await peer.ask(timeout=0.02) == LATE
    await cancelled.wait()
    assert peer.server.timed_out == 1


async def test_caller_gave_up_before(start: Start) -> None:
    """A handler whose caller's time was used up before does not begin."""
    begun: list[Any] = []

    async def begin(data: Any) -> None:
        begun.append(data)

    peer = await start(begin)
    assert await peer.ask(timeout=0.0) == LATE
    assert begun == []


async def test_nobody_waits_for_an_event(start: Start) -> None:
    """Of an event no timeout counts: its headers may be those of a request."""
    deadlines: list[Any] = []

    async def note(context: MessageContext[Any]) -> None:
        deadlines.append(context.deadline)

    peer = await start(note, kind=event_pattern)
    delivery = peer.send(id=UNSET, timeout=0.0)
    await until(lambda: delivery.outcome)
    assert (delivery.outcome, deadlines) == ("ack", [None])


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_handlers_own_timeout(
    start: Start,
    timeout: float | None,  # noqa: ASYNC109 - the caller's
) -> None:
    """A handler's own timeout ends it, however patient its caller is."""

    async def hang(data: Any) -> None:
        await asyncio.Event().wait()

    peer = await start(hang, options={"timeout": 0.02})
    assert await peer.ask(timeout=timeout) == LATE


async def test_sync_handlers_own_timeout(start: Start, gate: Gate) -> None:
    """A sync handler is answered when its time is up, while its thread goes on."""

    def block(data: Any) -> str:
        gate.wait()
        return "too late"

    peer = await start(block, options={"timeout": 0.02})
    assert await peer.ask() == LATE
    assert not peer.server.in_flight
    gate.go_on.set()
    assert len(peer.replies) == 1


async def test_deadline_passed_in_the_queue(
    start: Start, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """What waited for a thread until its caller gave up is not begun."""
    begun: list[Any] = []

    def block(data: Any) -> None:
        begun.append(data)
        gate.wait()

    peer = await start(block, threads=1)
    peer.send(data=b"1")
    assert await asyncio.to_thread(gate.entered.wait, 10)
    late = peer.send(data=b"2", timeout=0.01)
    await asyncio.sleep(0.02)
    gate.go_on.set()
    await until(lambda: late.outcome)
    assert begun == [1]
    assert decode(peer.replies[-1].error or b"") == LATE
    assert "No thread in time for request it." in caplog.text


async def test_cancelled_in_the_queue(start: Start, gate: Gate) -> None:
    """What was cancelled while it waited for a thread is not begun."""
    begun: list[Any] = []

    def block(data: Any) -> None:
        begun.append(data)
        gate.wait()

    peer = await start(block, threads=1)
    first = peer.send(data=b"1")
    assert await asyncio.to_thread(gate.entered.wait, 10)
    peer.send(data=b"2").cancel()
    gate.go_on.set()
    await until(lambda: first.outcome)
    assert begun == [1]
    assert len(peer.replies) == 1


async def test_cancel(start: Start) -> None:
    """A cancelled delivery cancels its handler and answers nothing, once."""
    cancelled = asyncio.Event()
    entered = asyncio.Event()

    async def hang(data: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    peer = await start(hang)
    delivery = peer.send()
    await entered.wait()
    delivery.cancel()
    delivery.cancel()
    await cancelled.wait()
    assert (peer.replies, delivery.outcome) == ([], "ack")
    assert delivery.abandoned


async def test_handler_that_ignores_its_cancelling(start: Start) -> None:
    """A handler that goes on after its time is answered once, for the time."""
    went_on = asyncio.Event()

    async def stubborn(data: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        went_on.set()
        return "too late"

    peer = await start(stubborn)
    assert await peer.ask(timeout=0.02) == LATE
    await went_on.wait()
    await asyncio.sleep(0)
    assert len(peer.replies) == 1


async def test_name_in_logs(start: Start) -> None:
    """A delivery names its handler and pattern, never its payload."""
    peer = await start(async_handler)
    delivery = peer.send(data=b'"secret"')
    assert repr(delivery) == "<tests.endpoints.peer.async_handler for request it>"
    await until(lambda: delivery.outcome)
