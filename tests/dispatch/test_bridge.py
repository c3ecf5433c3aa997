"""Where sync and async pieces meet."""

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_microservices.dispatch.bridge import Bridge, SyncItems

from .composing import POOL, STREAMS, Composed


def here(*args: Any) -> str:
    """Return the name of the thread."""
    return threading.current_thread().name


async def ahere(*args: Any) -> str:
    """Return the name of the loop's thread."""
    return threading.current_thread().name


@pytest.fixture
def bridge(composed: Composed) -> Bridge:
    """Cross between the test's loop and real threads."""
    return Bridge(composed.pool, composed.streams)


async def test_run(bridge: Bridge) -> None:
    """A sync piece runs on a thread of the pool."""
    assert (await bridge.run(here)).startswith(POOL)


async def test_as_async(bridge: Bridge) -> None:
    """An async part stays itself, a sync one is run on the pool."""
    assert bridge.as_async(ahere) is ahere
    assert (await bridge.as_async(here)(1)).startswith(POOL)


async def test_nested_pieces_run_on_the_waiting_thread(bridge: Bridge) -> None:
    """What a sync layer has called runs on its thread, which waits for it."""

    async def inner() -> str:
        name: str = await bridge.run(here)
        return name

    call = bridge.to_thread(inner, streams=False)
    outer = Bridge(bridge.pool, bridge.streams)
    inside, outside = await outer.run(lambda: (call(), here()))
    assert inside == outside
    assert outside.startswith(POOL)


async def test_nested_pieces_cannot_use_up_the_pool(composed: Composed) -> None:
    """As many messages as there are threads do not wait for one another."""
    alone = Composed(1)
    bridge = Bridge(alone.pool, alone.streams)
    call = bridge.to_thread(partial(bridge.run, here), streams=False)
    assert (await alone.pool.call(call)).startswith(POOL)
    alone.stop()


async def test_database_thread(bridge: Bridge) -> None:
    """Async ORM calls get a thread of the pool, or the one that waits for them."""
    async with bridge.database_thread():
        assert (await sync_to_async(here)()).startswith(POOL)

    async def inner() -> str:
        async with bridge.database_thread():
            name: str = await sync_to_async(here)()
            return name

    call = bridge.to_thread(inner, streams=False)
    inside, outside = await bridge.pool.call(lambda: (call(), here()))
    assert inside == outside


def count(to: int) -> Iterator[Any]:
    """Yield numbers, and where that was."""
    for number in range(to):
        yield number, here()


async def acount(
    to: int, closed: list[bool] | None = None
) -> AsyncGenerator[Any, None]:
    """Yield numbers."""
    try:
        for number in range(to):
            yield number
    finally:
        if closed is not None:
            closed.append(True)


async def test_sync_stream_for_the_loop(bridge: Bridge) -> None:
    """A sync iterator becomes an async one, iterated on a stream's thread."""
    items = await bridge.to_loop(count, streams=True)(2)
    numbers, names = zip(*[item async for item in items], strict=True)
    assert numbers == (0, 1)
    assert all(name.startswith(STREAMS) for name in names)


async def test_one_answer_for_the_loop(bridge: Bridge) -> None:
    """An answer that is no stream is left as it is."""
    assert await bridge.to_loop(lambda: [1], streams=False)() == [1]


async def test_async_stream_for_a_thread(bridge: Bridge, composed: Composed) -> None:
    """An async iterator becomes a sync one for the thread that iterates over it."""

    async def inner(to: int) -> Any:
        return acount(to)

    call = bridge.to_thread(inner, streams=True)
    assert await composed.streams.call(lambda: list(call(3))) == [0, 1, 2]


async def test_stream_that_is_handed_on(bridge: Bridge) -> None:
    """A sync layer that does not look at the items costs them nothing."""
    source = acount(1)
    assert bridge.async_items(SyncItems(source)) is source
    assert bridge.async_items(source) is source


class Numbers:
    """An async iterable that cannot be closed."""

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    def __init__(self) -> None:
        self.left = [1, 2]

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()


async def test_any_async_iterable_can_be_closed(bridge: Bridge) -> None:
    """What has no ``aclose`` gets one."""
    items = bridge.async_items(Numbers())
    assert [item async for item in items] == [2, 1]
    await items.aclose()


async def test_closing_a_stream_on_a_thread(composed: Composed) -> None:
    """A sync layer that has enough ends the async stream."""
    closed: list[bool] = []

    def first() -> Any:
        items = SyncItems(acount(3, closed))
        item = next(iter(items))
        items.close()
        return item

    assert await composed.streams.call(first) == 0
    assert closed == [True]


@pytest.mark.parametrize("source", [lambda: count(2), lambda: iter([(0, ""), (1, "")])])
async def test_nested_streams_share_a_thread(composed: Composed, source: Any) -> None:
    """A sync stream inside of a sync layer is iterated on that layer's thread."""
    bridge = Bridge(composed.pool, composed.streams)  # which has one thread for streams

    async def inner() -> Any:
        return bridge.async_items(source())

    call = bridge.to_thread(inner, streams=True)
    items = await composed.streams.call(lambda: list(call()))
    assert [number for number, _ in items] == [0, 1]
