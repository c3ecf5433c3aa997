"""Client middleware, around each call in the caller's own context."""

from collections.abc import Awaitable, Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from ..concurrency.adapt import to_async, to_async_apart, to_sync
from ..dispatch.modes import layer_of
from ..wire.messages import new_id
from .calls import Call

if TYPE_CHECKING:
    from .exchange import Exchange


class Layers:
    """The same middleware composed for sync and for async verbs.

    ``middleware(get_response)`` returns ``inner(call)``, sync or async; where its mode
    is not the verb's, it runs on the other side of asgiref's bridge.
    """

    def __init__(self, exchange: "Exchange", middleware: Iterable[Any]) -> None:

        def run(call: Call) -> Any:
            return exchange.run(_fresh(call))

        async def arun(call: Call) -> Any:
            return await exchange.arun(_fresh(call))

        self.run: Callable[[Call], Any] = run
        self.arun: Callable[[Call], Awaitable[Any]] = arun
        for factory in reversed(tuple(middleware)):
            self.run = _sync_layer(factory, self.run)
            self.arun = _async_layer(factory, self.arun)


def _fresh(call: Call) -> Call:
    """Return a call of its own for each try: middleware may ask for several."""
    again = copy(call)
    if not call.is_event:
        again.id = new_id()
    return again


def _sync_layer(factory: Any, inner: Callable[[Call], Any]) -> Callable[[Call], Any]:
    layer = layer_of(factory, inner)
    if iscoroutinefunction(layer):
        return to_sync(layer_of(factory, to_async(inner)))
    return layer


def _async_layer(
    factory: Any, inner: Callable[[Call], Awaitable[Any]]
) -> Callable[[Call], Awaitable[Any]]:
    layer = layer_of(factory, inner)
    if not iscoroutinefunction(layer):
        return to_async_apart(layer_of(factory, to_sync(inner)))
    return layer
