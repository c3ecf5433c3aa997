"""Where the sync and async pieces around one handler meet."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from contextvars import ContextVar
from typing import Any

from ..concurrency.adapt import to_async, to_sync
from ..concurrency.inline import each
from ..concurrency.pools import Pool
from .modes import is_async

_END: Any = object()


class Bridge:
    """Crosses between the loop and threads for the pieces of one chain.

    A sync piece of an async chain runs on a thread of the pool. But where a sync layer
    stands around the chain, it runs on that layer's thread, which waits for it: so
    they share a transaction, and no thread of the pool ever waits for another.

    A stream's items cross too: an async layer gets an async iterator, a sync layer a
    sync one, whatever the handler is.
    """

    def __init__(self, pool: Pool, streams: Pool) -> None:
        self.pool = pool
        self.streams = streams

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a sync piece."""
        if _thread_waits.get():
            return await to_async(function)(*args)
        return await self.pool.call(function, *args)

    def database_thread(self) -> AbstractAsyncContextManager[None]:
        """Give async ORM calls a thread, unless a waiting one is there for them."""
        return nullcontext() if _thread_waits.get() else self.pool.database_thread()

    def as_async(self, part: Any) -> Callable[..., Awaitable[Any]]:
        """Return a guard or filter to be awaited."""
        if is_async(part):
            result: Callable[..., Awaitable[Any]] = part
            return result

        async def call(*args: Any) -> Any:
            return await self.run(part, *args)

        return call

    def to_loop(
        self, call: Callable[..., Any], *, streams: bool
    ) -> Callable[..., Awaitable[Any]]:
        """Return a sync chain to be awaited."""
        call_on_loop = self.as_async(call)
        if not streams:
            return call_on_loop

        async def call_stream(*args: Any) -> Any:
            return self.async_items(await call_on_loop(*args))

        return call_stream

    def to_thread(
        self, call: Callable[..., Awaitable[Any]], *, streams: bool
    ) -> Callable[..., Any]:
        """Return an async chain to be called by a sync layer."""
        call_on_thread = _to_sync(call)
        if not streams:
            return call_on_thread
        return lambda *args: SyncItems(call_on_thread(*args))

    def async_items(self, items: Any) -> AsyncGenerator[Any, None]:
        """Return the items of a stream for the loop, as what can be closed."""
        if isinstance(items, SyncItems):
            return items.source
        if not hasattr(items, "__aiter__"):
            return self._on_a_thread(items)
        found: AsyncGenerator[Any, None] = items
        return found if hasattr(items, "aclose") else _each(items)

    async def _on_a_thread(self, items: Iterable[Any]) -> AsyncGenerator[Any, None]:
        """Iterate on the thread that waits, or else on one of the streams'."""
        stream = each if _thread_waits.get() else self.streams.stream
        async with aclosing(stream(lambda: iter(items))) as found:
            async for item in found:
                yield item


_thread_waits: ContextVar[bool] = ContextVar("thread_waits", default=False)


def _to_sync(call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Let a thread wait for ``call``, and run its sync pieces meanwhile."""

    async def awaited(*args: Any) -> Any:
        token = _thread_waits.set(True)
        try:
            return await call(*args)
        finally:
            _thread_waits.reset(token)

    return to_sync(awaited)


async def _each(items: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in items:
        yield item


class SyncItems:
    """The items of an async stream, as a sync layer around it sees them.

    A layer that hands them on as they are costs nothing: ``source`` is taken out again.
    """

    def __init__(self, source: AsyncGenerator[Any, None]) -> None:
        self.source = source
        self._next = _to_sync(self._anext)

    async def _anext(self) -> Any:
        return await anext(self.source, _END)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = self._next()
        if item is _END:
            raise StopIteration
        return item

    def close(self) -> None:
        """End the stream."""
        _to_sync(self.source.aclose)()
