"""Sync or async: the mode of a piece of the user's, told by what it is."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed


def is_async(part: Any) -> bool:
    """Whether a function, or an object's ``__call__``, is async."""
    return iscoroutinefunction(part) or iscoroutinefunction(
        getattr(part, "__call__", None)  # noqa: B004 - an instance's own
    )


def layer_of(factory: Any, get_response: Callable[..., Any]) -> Callable[..., Any]:
    """Make the layer of a middleware: what it returns for ``get_response``.

    ``asgiref.sync.iscoroutinefunction`` knows the mode of any layer, so that the next
    one outside of it can ask.
    """
    try:
        layer = factory(get_response)
    except MiddlewareNotUsed:
        return get_response
    if not callable(layer):
        name = getattr(factory, "__qualname__", repr(factory))
        message = f"Middleware {name} returned {layer!r}, which is not callable."
        raise ImproperlyConfigured(message)
    # An object whose __call__ is async says so only through the method.
    made: Callable[..., Any] = layer
    return made if iscoroutinefunction(layer) or not is_async(layer) else layer.__call__
