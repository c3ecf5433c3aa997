"""A status is a value and a stream."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from django_microservices.wire.status import Status, StatusStream


@pytest.fixture
def status() -> StatusStream:
    """Make one that says "disconnected"."""
    return StatusStream()


async def reading(status: StatusStream) -> AsyncIterator[Status]:
    """Begin to iterate, with the first value taken."""
    items = aiter(status)
    assert await anext(items) is status.value
    return items


def test_compares_with_its_value(status: StatusStream) -> None:
    """It equals its value, as member and as text, and no other stream."""
    assert status == Status.DISCONNECTED
    assert status == "disconnected"
    assert status != StatusStream()
    assert len({status, StatusStream()}) == 2
    assert (str(status), repr(status)) == ("disconnected", "<Status disconnected>")


def test_listeners_hear_changes(status: StatusStream) -> None:
    """A listener hears each change, and no repeats."""
    heard: list[Status] = []
    status.listen(heard.append)
    status.change(Status.CONNECTING)
    status.change(Status.CONNECTING)
    status.change(Status.CONNECTED)
    assert heard == ["connecting", "connected"]


async def test_iterates_over_changes(status: StatusStream) -> None:
    """Each change wakes everyone who iterates."""
    first, second = await reading(status), await reading(status)
    waiting = [asyncio.ensure_future(anext(items)) for items in (first, second)]
    await asyncio.sleep(0)
    status.change(Status.CONNECTED)
    assert await asyncio.gather(*waiting) == ["connected", "connected"]
    await first.aclose()  # type: ignore[attr-defined]
    await second.aclose()  # type: ignore[attr-defined]


async def test_slow_reader_sees_the_latest(status: StatusStream) -> None:
    """What was over before it looked is not told."""
    items = await reading(status)
    status.change(Status.CONNECTING)
    status.change(Status.CONNECTED)
    assert await anext(items) == "connected"
    await items.aclose()  # type: ignore[attr-defined]


async def test_reader_that_is_cancelled(status: StatusStream) -> None:
    """A reader that has gone is forgotten, even in the tick of a change."""
    items = await reading(status)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    (future,) = status._waiting
    future.cancel()
    status.change(Status.CONNECTED)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not status._waiting
