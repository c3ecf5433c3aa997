"""Composing: the order of the pieces, every mix and every shape of them."""

import asyncio
import itertools
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.utils.decorators import (
    async_only_middleware,
    sync_and_async_middleware,
    sync_only_middleware,
)

from django_microservices import (
    Controller,
    message_pattern,
    use_filters,
    use_guards,
    use_interceptors,
    use_pipes,
)
from django_microservices.dispatch.middleware import compose

from .composing import Composed, handler_of
from .pieces import (
    ASYNC,
    HANDLERS,
    SYNC,
    Recorder,
    admit,
    async_handler,
    fail,
    plus_one,
    raise_again,
    sync_handler,
    thread,
)

# --- the order --------------------------------------------------------------------


async def test_order(composed: Composed) -> None:
    """Nest's order: the Controller's parts stand around the handler's own."""
    recorder = Recorder()

    class Ordered(Controller):
        guards = (recorder.part("guard C1", admit), recorder.part("guard C2", admit))
        pipes = (recorder.part("pipe C", plus_one),)
        interceptors = (recorder.layer("interceptor C"),)
        filters = (recorder.part("filter C", lambda e, c: type(e).__name__),)

        @use_guards(recorder.part("guard h", admit))
        @use_pipes(recorder.part("pipe h", plus_one))
        @use_interceptors(recorder.layer("interceptor h1"))
        @use_interceptors(recorder.layer("interceptor h2"))
        @use_filters(
            recorder.part("filter h1", raise_again),
            recorder.part("filter h2", raise_again),
        )
        @message_pattern("a")
        def method(self, data: int) -> None:
            recorder.note(f"handler {data}")
            raise KeyError

    handler = handler_of(Ordered.method, Ordered)
    middleware = (recorder.layer("settings"), recorder.layer("server"))
    assert await composed.answer(handler, 1, middleware) == "KeyError"
    assert recorder.notes == [
        "settings",
        "server",
        "guard C1",
        "guard C2",
        "guard h",
        "interceptor C",
        "interceptor h1",
        "interceptor h2",
        "pipe C",
        "pipe h",
        "handler 3",
        "filter h2",
        "filter h1",
        "filter C",
        "/server",
        "/settings",
    ]


# --- every mix --------------------------------------------------------------------


KINDS = tuple(itertools.product((SYNC, ASYNC), repeat=5))


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("make", HANDLERS)
async def test_mixes(composed: Composed, make: Any, kinds: tuple[str, ...]) -> None:
    """Sync pieces run on threads, async ones on the loop, and the answer is right."""
    recorder, function = Recorder(), make()
    middleware, filter_, guard, interceptor, pipe = kinds
    use_filters(recorder.part("filter", raise_again, filter_))(function)
    use_guards(recorder.part("guard", admit, guard))(function)
    use_interceptors(recorder.layer("interceptor", interceptor))(function)
    use_pipes(recorder.part("pipe", plus_one, pipe))(function)
    layers = (recorder.layer("middleware", middleware),)
    assert await composed.answer(handler_of(function), 1, layers) == [2, HANDLERS[make]]
    assert recorder.places == {
        "middleware": middleware,
        "/middleware": middleware,
        "guard": guard,
        "interceptor": interceptor,
        "/interceptor": interceptor,
        "pipe": pipe,
    }


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("make", HANDLERS)
async def test_filters_in_every_mix(
    composed: Composed, make: Any, kinds: tuple[str, ...]
) -> None:
    """What a pipe raises reaches the filters, whichever pieces are async."""
    recorder, function = Recorder(), make()
    middleware, outer, inner, guard, pipe = kinds
    use_filters(
        recorder.part("outer", lambda error, context: str(error), outer),
        recorder.part("inner", raise_again, inner),
    )(function)
    use_guards(recorder.part("guard", admit, guard))(function)
    use_pipes(recorder.part("pipe", fail, pipe))(function)
    layers = (recorder.layer("middleware", middleware),)
    handler = handler_of(function)
    answer = await composed.answer(handler, 1, layers)
    assert answer == (["failed"] if handler.streams else "failed")
    names = [name for name in recorder.notes if "middleware" not in name]
    assert names == ["guard", "pipe", "inner", "outer"]
    places = [recorder.places[name] for name in names]
    assert places == [guard, pipe, inner, outer]


async def test_plain_sync_handler_has_no_layers(composed: Composed) -> None:
    """Nothing stands around a handler that asks for nothing: the hot path."""
    handler = handler_of(sync_handler())
    chain = compose(handler, (), composed.pool, composed.streams)
    assert not chain.is_async
    assert closure_of(chain.call) == {handler.plan.bind, handler.function}


def closure_of(function: Any) -> set[Any]:
    """Return what a function has closed over."""
    return {cell.cell_contents for cell in function.__closure__}


# --- shapes of middleware ---------------------------------------------------------


@sync_and_async_middleware
def either(get_response: Any) -> Any:
    """Be whatever the inside is."""
    if asyncio.iscoroutinefunction(get_response):

        async def ainner(context: Any) -> Any:
            return [ASYNC, await get_response(context)]

        return ainner

    def inner(context: Any) -> Any:
        return [SYNC, get_response(context)]

    return inner


@sync_only_middleware
def only_sync(get_response: Any) -> Any:
    """Be sync."""
    return lambda context: [thread(), get_response(context)]


@async_only_middleware
def only_async(get_response: Any) -> Any:
    """Be async."""

    async def inner(context: Any) -> Any:
        return [thread(), await get_response(context)]

    return inner


class OldStyle:
    """Middleware as a class."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, context: Any) -> Any:
        """Tell where it runs."""
        return [thread(), self.get_response(context)]


class AsyncStyle(OldStyle):
    """Middleware as a class, async."""

    async def __call__(self, context: Any) -> Any:
        """Tell where it runs."""
        return [thread(), await self.get_response(context)]


@pytest.mark.parametrize(
    ("layer", "make", "expected"),
    [
        (either, sync_handler, SYNC),
        (either, async_handler, ASYNC),
        (only_sync, sync_handler, SYNC),
        (only_sync, async_handler, SYNC),
        (only_async, sync_handler, ASYNC),
        (only_async, async_handler, ASYNC),
        (OldStyle, sync_handler, SYNC),
        (OldStyle, async_handler, SYNC),
        (AsyncStyle, sync_handler, ASYNC),
        (AsyncStyle, async_handler, ASYNC),
    ],
)
async def test_shapes(composed: Composed, layer: Any, make: Any, expected: str) -> None:
    """Middleware may be a function or a class, marked with its mode or not."""
    answer = await composed.answer(handler_of(make()), 1, (layer,))
    assert answer == [expected, [1, HANDLERS[make]]]


async def test_either_follows_an_async_class(composed: Composed) -> None:
    """What adapts itself sees that the class inside of it is async."""
    layers = (either, AsyncStyle)
    answer = await composed.answer(handler_of(sync_handler()), 1, layers)
    assert answer == [ASYNC, [ASYNC, [1, SYNC]]]


async def test_middleware_not_used(composed: Composed) -> None:
    """Middleware may take itself out, as Django's may."""

    def unused(get_response: Any) -> Any:
        raise MiddlewareNotUsed

    handler = handler_of(sync_handler())
    assert await composed.answer(handler, 1, (unused,)) == [1, SYNC]


def forgets(get_response: Any) -> None:
    """Return nothing."""


@pytest.mark.parametrize(("layer", "name"), [(forgets, "forgets"), ([].append, "")])
async def test_middleware_that_returns_nothing(
    composed: Composed, layer: Any, name: str
) -> None:
    """A layer that cannot be called names the middleware."""
    with pytest.raises(
        ImproperlyConfigured, match=rf"Middleware .*{name} returned Non"
    ):
        await composed.answer(handler_of(sync_handler()), 1, (layer,))
