"""Client middleware, around each call in the caller's own context."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from ..concurrency.adapt import to_async, to_sync
from .calls import Call

if TYPE_CHECKING:
    from .exchange import Exchange


class Layers:
    """The same middleware composed for sync and for async verbs.

    ``middleware(get_response)`` returns ``inner(call)``, sync or async; where its mode
    is not the verb's, it runs on the other side of asgiref's bridge.
    """

    def __init__(self, exchange: "Exchange", middleware: Iterable[Any]) -> None:
        self.run: Callable[[Call], Any] = exchange.run
        self.arun: Callable[[Call], Awaitable[Any]] = exchange.arun
        for factory in reversed(tuple(middleware)):
            self.run = _sync_layer(factory, self.run)
            self.arun = _async_layer(factory, self.arun)


def _sync_layer(factory: Any, inner: Callable[[Call], Any]) -> Callable[[Call], Any]:
    layer: Callable[[Call], Any] = factory(inner)
    if iscoroutinefunction(layer):
        return to_sync(factory(to_async(inner)))
    return layer


def _async_layer(
    factory: Any, inner: Callable[[Call], Awaitable[Any]]
) -> Callable[[Call], Awaitable[Any]]:
    layer: Callable[[Call], Awaitable[Any]] = factory(inner)
    if not iscoroutinefunction(layer):
        return to_async(factory(to_sync(inner)))
    return layer
