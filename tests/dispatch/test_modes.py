"""Sync or async, told by what a piece is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed

from django_microservices.dispatch.modes import is_async, layer_of


def sync(*args: Any) -> None:
    """Do nothing."""


async def asynchronous(*args: Any) -> None:
    """Do nothing."""


class Object:
    """A layer that is an object."""

    def __init__(self, get_response: Any = None) -> None:
        self.get_response = get_response

    def __call__(self, context: Any) -> str:
        """Tell that it was called."""
        return f"{context} seen"


class AsyncObject(Object):
    """An object with an async ``__call__``."""

    async def __call__(self, context: Any) -> str:  # type: ignore[override]
        """Tell that it was called."""
        return f"{context} awaited"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (sync, False),
        (asynchronous, True),
        (partial(asynchronous), True),
        (Object(), False),
        (AsyncObject(), True),
        (markcoroutinefunction(lambda: None), True),
    ],
)
def test_is_async(part: Any, expected: bool) -> None:  # noqa: FBT001
    """A function is async, or what an object's ``__call__`` is."""
    assert is_async(part) is expected


@pytest.mark.parametrize("layer", [sync, asynchronous, Object()])
def test_layer(layer: Any) -> None:
    """A layer is what the factory returned for what it wraps."""
    wrapped: list[Any] = []

    def factory(get_response: Callable[..., Any]) -> Any:
        wrapped.append(get_response)
        return layer

    assert layer_of(factory, sync) is layer
    assert wrapped == [sync]


async def test_layer_that_is_an_async_object() -> None:
    """A layer outside of it can tell that it is async."""
    layer = layer_of(AsyncObject, asynchronous)
    assert iscoroutinefunction(layer)
    assert await layer("a") == "a awaited"


def test_layer_that_steps_aside() -> None:
    """A factory may leave itself out, as Django's may."""

    def factory(get_response: Callable[..., Any]) -> Any:
        raise MiddlewareNotUsed

    assert layer_of(factory, sync) is sync


@pytest.mark.parametrize("name", ["factory", "partial"])
def test_layer_that_is_none(name: str) -> None:
    """A factory that forgot to return is named."""

    def factory(get_response: Callable[..., Any]) -> Any:
        return None

    made: Any = factory if name == "factory" else partial(factory)
    with pytest.raises(ImproperlyConfigured, match=rf"{name}.* returned None, which"):
        layer_of(made, sync)
