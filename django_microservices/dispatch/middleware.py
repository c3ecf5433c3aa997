"""Composes a handler and the four shapes around it into one callable, once.

Nest's order: middleware, filters, guards, interceptors, pipes, handler. Each piece may
be sync or async; where a sync piece stands in an async chain it runs on a thread of
the pool, in the message's context.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from inspect import isawaitable, iscoroutine
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied

from ..concurrency.pools import Pool
from ..wire.context import MessageContext
from .bridge import Bridge
from .handlers import Handler
from .modes import is_async, layer_of

Context = MessageContext[Any]
Layer = Callable[[Context], Any]
AsyncLayer = Callable[[Context], Awaitable[Any]]


class Chain(NamedTuple):
    """A composed handler: ``call(context)``, awaited when ``is_async``."""

    call: Layer
    is_async: bool


def compose(
    handler: Handler, middleware: Iterable[Any], pool: Pool, streams: Pool
) -> Chain:
    """Put ``middleware`` (outermost first) and the handler's own parts around it.

    The call of a handler that ``streams`` returns an iterator: an async one when the
    chain is async, and else what iterates on a thread. ``streams`` are those threads.
    """
    composer = _Composer(handler, pool, streams)
    for interceptor in reversed(handler.interceptors):
        composer.wrap(interceptor)
    for guard in reversed(handler.guards):
        composer.guard(guard)
    for filter_ in handler.filters:
        composer.filter(filter_)
    for factory in reversed(tuple(middleware)):
        composer.wrap(factory)
    return composer.chain


class _Composer:
    """A chain while it grows outwards: sync for as long as every piece is."""

    def __init__(self, handler: Handler, pool: Pool, streams: Pool) -> None:
        self.is_stream = handler.streams
        self.bridge = Bridge(pool, streams)
        self.chain = _innermost(handler, self.bridge)

    def wrap(self, factory: Any) -> None:
        """Add middleware, adapting whichever of the two is sync.

        What a factory returns tells its mode, so that no decorator is needed; Django's
        ``sync_and_async_middleware`` and its kin work too.
        """
        chain = self.chain
        layer = layer_of(factory, chain.call)
        if iscoroutinefunction(layer) == chain.is_async:
            self.chain = Chain(layer, chain.is_async)
        elif chain.is_async:
            self._call_on_a_thread(factory, chain.call)
        else:
            self.chain = Chain(layer_of(factory, self._on_loop()), is_async=True)

    def _call_on_a_thread(self, factory: Any, call: AsyncLayer) -> None:
        inner = self.bridge.to_thread(call, streams=self.is_stream)
        layer = layer_of(factory, inner)
        outer = self.bridge.to_loop(layer, streams=self.is_stream)
        self.chain = Chain(outer, is_async=True)

    def _on_loop(self) -> AsyncLayer:
        """Return the chain to be awaited."""
        call = self.chain.call
        if self.chain.is_async:
            return call
        return self.bridge.to_loop(call, streams=self.is_stream)

    def guard(self, guard: Any) -> None:
        """Add a guard."""
        if self.chain.is_async or is_async(guard):
            layer = _async_guard(self.bridge.as_async(guard), self._on_loop())
            self.chain = Chain(layer, is_async=True)
        else:
            self.chain = Chain(_guard(guard, self.chain.call), is_async=False)

    def filter(self, filter_: Any) -> None:
        """Add an exception filter."""
        if self.chain.is_async or is_async(filter_):
            make = _async_stream_filter if self.is_stream else _async_filter
            layer = make(self.bridge.as_async(filter_), self._on_loop())
            self.chain = Chain(layer, is_async=True)
        else:
            make_sync = _stream_filter if self.is_stream else _filter
            self.chain = Chain(make_sync(filter_, self.chain.call), is_async=False)


# --- the handler ------------------------------------------------------------------


def _innermost(handler: Handler, bridge: Bridge) -> Chain:
    plan, function, bind = handler.plan, handler.function, handler.plan.bind
    if plan.is_async or handler.is_async:
        return Chain(_async_innermost(handler, bridge), is_async=True)

    def call(context: Context) -> Any:
        args, kwargs = bind(context.message.data, context)
        return function(*args, **kwargs)

    return Chain(call, is_async=False)


def _async_innermost(handler: Handler, bridge: Bridge) -> AsyncLayer:
    plan, function, bind = handler.plan, handler.function, handler.plan.bind
    simple = not (plan.is_async or plan.may_block or handler.uses_database)
    if handler.streams or not simple:
        return _with_database(handler, bridge, _bound(handler, bridge))

    async def call(context: Context) -> Any:
        args, kwargs = bind(context.message.data, context)
        return await function(*args, **kwargs)

    return call


def _bound(handler: Handler, bridge: Bridge) -> AsyncLayer:
    """Return what gives the arguments, each step having run where it belongs."""
    plan, bind, abind = handler.plan, handler.plan.bind, handler.plan.abind
    if plan.is_async:
        return lambda context: abind(context.message.data, context, bridge.run)
    if plan.may_block:
        return lambda context: bridge.run(bind, context.message.data, context)

    async def values(context: Context) -> Any:
        return bind(context.message.data, context)

    return values


def _with_database(handler: Handler, bridge: Bridge, values: AsyncLayer) -> AsyncLayer:
    run = _called(handler, bridge, values)
    if not handler.uses_database:
        return run

    async def run_with_database(context: Context) -> Any:
        async with bridge.database_thread():
            return await run(context)

    async def items_with_database(context: Context) -> AsyncIterator[Any]:
        async with bridge.database_thread(), aclosing(await run(context)) as items:
            async for item in items:
                yield item

    async def stream_with_database(context: Context) -> Any:
        return items_with_database(context)

    return stream_with_database if handler.streams else run_with_database


def _called(handler: Handler, bridge: Bridge, values: AsyncLayer) -> AsyncLayer:
    """Return what calls the handler where it belongs."""
    function, streams = handler.function, handler.streams

    async def run(context: Context) -> Any:
        args, kwargs = await values(context)
        if not handler.is_async:
            return await bridge.run(lambda: function(*args, **kwargs))
        result = function(*args, **kwargs)
        return result if streams and not isawaitable(result) else await result

    async def run_stream(context: Context) -> Any:
        return bridge.async_items(await run(context))

    return run_stream if streams else run


# --- guards -----------------------------------------------------------------------


def _guard(guard: Any, call: Layer) -> Layer:
    def layer(context: Context) -> Any:
        _admit(guard, guard(context))
        return call(context)

    return layer


def _async_guard(guard: AsyncLayer, call: AsyncLayer) -> AsyncLayer:
    async def layer(context: Context) -> Any:
        _admit(guard, await guard(context))
        return await call(context)

    return layer


def _admit(guard: Any, answer: Any) -> None:
    if not answer:
        raise PermissionDenied
    if iscoroutine(answer):  # true whatever it would say
        answer.close()
        message = f"Guard {guard!r} returned a coroutine: make it an async def."
        raise TypeError(message)


# --- exception filters ------------------------------------------------------------


def _filter(filter_: Any, call: Layer) -> Layer:
    def layer(context: Context) -> Any:
        try:
            return call(context)
        except Exception as exception:  # noqa: BLE001 - filters choose
            return filter_(exception, context)

    return layer


def _async_filter(
    filter_: Callable[..., Awaitable[Any]], call: AsyncLayer
) -> AsyncLayer:
    async def layer(context: Context) -> Any:
        try:
            return await call(context)
        except Exception as exception:  # noqa: BLE001 - filters choose
            return await filter_(exception, context)

    return layer


def _stream_filter(filter_: Any, call: Layer) -> Layer:
    """Catch what a stream raises at any time; the filter's answer is the last item."""

    def rest(items: Iterable[Any], context: Context) -> Iterator[Any]:
        try:
            yield from items
        except Exception as exception:  # noqa: BLE001 - filters choose
            yield filter_(exception, context)

    def layer(context: Context) -> Any:
        try:
            items = call(context)
        except Exception as exception:  # noqa: BLE001 - filters choose
            return iter((filter_(exception, context),))
        return rest(items, context)

    return layer


def _async_stream_filter(
    filter_: Callable[..., Awaitable[Any]], call: AsyncLayer
) -> AsyncLayer:
    """Return the twin of :func:`_stream_filter`."""

    async def alone(item: Any) -> AsyncIterator[Any]:
        yield item

    async def rest(items: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async with aclosing(items):
                async for item in items:
                    yield item
        except Exception as exception:  # noqa: BLE001 - filters choose
            yield await filter_(exception, context)

    async def layer(context: Context) -> Any:
        try:
            items = await call(context)
        except Exception as exception:  # noqa: BLE001 - filters choose
            return alone(await filter_(exception, context))
        return rest(items, context)

    return layer
