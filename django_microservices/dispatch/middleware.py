"""Composes a handler and the four shapes around it into one callable, once.

Nest's order: middleware, filters, guards, interceptors, pipes, handler. Each piece may
be sync or async; where a sync piece stands in an async chain it runs on a thread of
the pool, in the message's context.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied

from ..concurrency.adapt import to_sync
from ..wire.context import MessageContext
from .handlers import Handler

Call = Callable[[MessageContext[Any]], Any]
AsyncCall = Callable[[MessageContext[Any]], Awaitable[Any]]


class Pool(Protocol):
    """What composing needs of the sync threads."""

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a sync piece on a thread, in the caller's context."""

    def database_thread(self) -> Any:
        """Give the async ORM calls inside a block a thread of the pool."""


class Chain(NamedTuple):
    """A composed handler: ``call(context)``, awaited when ``is_async``."""

    call: Call
    is_async: bool


def compose(handler: Handler, middleware: Iterable[Any], pool: Pool) -> Chain:
    """Put ``middleware`` (outermost first) and the handler's own parts around it."""
    chain = _innermost(handler, pool)
    for interceptor in reversed(handler.interceptors):
        chain = _wrap(interceptor, chain, pool)
    for guard in reversed(handler.guards):
        chain = _guarded(guard, chain, pool)
    for filter_ in handler.filters:
        chain = _filtered(filter_, chain, pool)
    for factory in reversed(tuple(middleware)):
        chain = _wrap(factory, chain, pool)
    return chain


def _innermost(handler: Handler, pool: Pool) -> Chain:
    plan, function = handler.plan, handler.function
    if plan.is_async:
        return Chain(_bound_on_the_loop(handler, pool), is_async=True)
    bind = plan.bind
    if handler.is_async:
        return Chain(_async_call(handler, pool), is_async=True)

    def call(context: MessageContext[Any]) -> Any:
        args, kwargs = bind(context.message.data, context)
        return function(*args, **kwargs)

    return Chain(call, is_async=False)


def _async_call(handler: Handler, pool: Pool) -> AsyncCall:
    bind, function, streams = handler.plan.bind, handler.function, handler.streams
    if handler.pipes or handler.plan.may_block:

        async def values(context: MessageContext[Any]) -> Any:
            return await pool.call(bind, context.message.data, context)

        return _with_database(handler, pool, values)

    async def call(context: MessageContext[Any]) -> Any:
        args, kwargs = bind(context.message.data, context)
        result = function(*args, **kwargs)
        return result if streams else await result

    if not handler.uses_database:
        return call

    async def values_here(context: MessageContext[Any]) -> Any:
        return bind(context.message.data, context)

    return _with_database(handler, pool, values_here)


def _bound_on_the_loop(handler: Handler, pool: Pool) -> AsyncCall:
    """Bind with async pipes or factories, then run the handler where it belongs."""
    abind = handler.plan.abind

    async def values(context: MessageContext[Any]) -> Any:
        return await abind(context.message.data, context)

    return _with_database(handler, pool, values)


def _with_database(handler: Handler, pool: Pool, values: AsyncCall) -> AsyncCall:
    function = handler.function

    async def run(context: MessageContext[Any]) -> Any:
        args, kwargs = await values(context)
        if not handler.is_async:
            return await pool.call(lambda: function(*args, **kwargs))
        result = function(*args, **kwargs)
        return result if handler.streams else await result

    if not handler.uses_database:
        return run

    async def run_with_database(context: MessageContext[Any]) -> Any:
        async with pool.database_thread():
            return await run(context)

    return run_with_database


def _wrap(factory: Any, chain: Chain, pool: Pool) -> Chain:
    """Wrap a chain in middleware, adapting whichever of the two is sync.

    What a factory returns tells its mode, so that no decorator is needed; Django's
    ``sync_and_async_middleware`` and its kin work too.
    """
    native = _made(factory, chain.call)
    if iscoroutinefunction(native) == chain.is_async:
        return Chain(native, chain.is_async)
    if chain.is_async:
        return _on_a_thread(_made(factory, to_sync(chain.call)), pool)
    inner = chain.call

    async def get_response(context: MessageContext[Any]) -> Any:
        return await pool.call(inner, context)

    return Chain(_made(factory, get_response), is_async=True)


def _made(factory: Any, get_response: Call) -> Any:
    layer = factory(get_response)
    if not callable(layer):
        name = getattr(factory, "__qualname__", repr(factory))
        message = f"Middleware {name} returned {layer!r}, which is not callable."
        raise ImproperlyConfigured(message)
    return layer


def _on_a_thread(call: Call, pool: Pool) -> Chain:
    async def layer(context: MessageContext[Any]) -> Any:
        return await pool.call(call, context)

    return Chain(layer, is_async=True)


def _async(chain: Chain, pool: Pool) -> AsyncCall:
    if chain.is_async:
        return chain.call
    return _on_a_thread(chain.call, pool).call


def _guarded(guard: Any, chain: Chain, pool: Pool) -> Chain:
    call = chain.call
    if not chain.is_async and not _is_async(guard):

        def layer(context: MessageContext[Any]) -> Any:
            if not guard(context):
                raise PermissionDenied
            return call(context)

        return Chain(layer, is_async=False)
    ask, inner = _as_async(guard, pool), _async(chain, pool)

    async def async_layer(context: MessageContext[Any]) -> Any:
        if not await ask(context):
            raise PermissionDenied
        return await inner(context)

    return Chain(async_layer, is_async=True)


def _filtered(filter_: Any, chain: Chain, pool: Pool) -> Chain:
    call = chain.call
    if not chain.is_async and not _is_async(filter_):

        def layer(context: MessageContext[Any]) -> Any:
            try:
                return call(context)
            except Exception as exception:  # noqa: BLE001 - filters choose
                return filter_(exception, context)

        return Chain(layer, is_async=False)
    catch, inner = _as_async(filter_, pool), _async(chain, pool)

    async def async_layer(context: MessageContext[Any]) -> Any:
        try:
            return await inner(context)
        except Exception as exception:  # noqa: BLE001 - filters choose
            return await catch(exception, context)

    return Chain(async_layer, is_async=True)


def _is_async(part: Any) -> bool:
    return iscoroutinefunction(part) or iscoroutinefunction(
        getattr(part, "__call__", None)  # noqa: B004 - an instance's async __call__
    )


def _as_async(part: Any, pool: Pool) -> Callable[..., Awaitable[Any]]:
    if _is_async(part):
        result: Callable[..., Awaitable[Any]] = part
        return result

    async def run(*args: Any) -> Any:
        return await pool.call(part, *args)

    return run
