"""Composing: the order of the pieces, and every mix of sync and async ones."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import (
    ImproperlyConfigured,
    MiddlewareNotUsed,
    PermissionDenied,
)
from django.db import connection, transaction
from django.utils import translation
from django.utils.decorators import (
    async_only_middleware,
    sync_and_async_middleware,
    sync_only_middleware,
)

from django_microservices import (
    Controller,
    Inject,
    MessageContext,
    RpcException,
    message_pattern,
    use_filters,
    use_guards,
    use_interceptors,
    use_pipes,
)
from django_microservices.dispatch.errors import error_value
from django_microservices.dispatch.middleware import compose
from django_microservices.dispatch.payloads import PayloadError

from .composing import POOL, STREAMS, Composed, context_of, handler_of

SYNC, ASYNC = "sync", "async"


def thread() -> str:
    """Tell whether this is the loop's thread or one of the pool's."""
    name = threading.current_thread().name
    if name.startswith((POOL, STREAMS)):
        return SYNC
    asyncio.get_running_loop()
    return ASYNC


class Recorder:
    """Makes pieces that note their names and where they ran."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.places: dict[str, str] = {}

    def note(self, name: str) -> None:
        """Note a piece."""
        self.notes.append(name)
        self.places[name] = thread()

    def layer(self, name: str, kind: str = SYNC) -> Any:
        """Make middleware."""

        def sync(get_response: Any) -> Any:
            def inner(context: Any) -> Any:
                self.note(name)
                answer = get_response(context)
                self.note(f"/{name}")
                return answer

            return inner

        def async_(get_response: Any) -> Any:
            async def inner(context: Any) -> Any:
                self.note(name)
                answer = await get_response(context)
                self.note(f"/{name}")
                return answer

            return inner

        return sync if kind == SYNC else async_

    def part(self, name: str, answer: Any, kind: str = SYNC) -> Any:
        """Make a guard, a pipe or a filter: ``answer`` gets its arguments."""

        def sync(*args: Any) -> Any:
            self.note(name)
            return answer(*args)

        async def async_(*args: Any) -> Any:
            self.note(name)
            return answer(*args)

        return sync if kind == SYNC else async_


def admit(context: Any) -> bool:
    """Let everything in."""
    return True


def raise_again(exception: Exception, context: Any) -> Any:
    """Leave it to the next filter."""
    raise exception


def plus_one(value: Any, parameter: Any) -> Any:
    """Change the payload."""
    return value + 1


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


def sync_handler() -> Any:
    """Make a handler that answers with the payload and where it ran."""

    @message_pattern("a")
    def handler(data: int) -> Any:
        return [data, thread()]

    return handler


def async_handler() -> Any:
    """Make the same as a coroutine function."""

    @message_pattern("a")
    async def handler(data: int) -> Any:
        return [data, thread()]

    return handler


def sync_stream() -> Any:
    """Make the same as a generator."""

    @message_pattern("a")
    def handler(data: int) -> Iterator[Any]:
        yield data
        yield thread()

    return handler


def async_stream() -> Any:
    """Make the same as an async generator."""

    @message_pattern("a")
    async def handler(data: int) -> AsyncIterator[Any]:
        yield data
        yield thread()

    return handler


HANDLERS = {
    sync_handler: SYNC,
    async_handler: ASYNC,
    sync_stream: SYNC,
    async_stream: ASYNC,
}
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


# --- guards -----------------------------------------------------------------------


def deny(context: Any) -> bool:
    """Let nobody in."""
    return False


async def adeny(context: Any) -> bool:
    """Let nobody in."""
    return False


def refuse(context: Any) -> bool:
    """Let nobody in, as a view would say it."""
    raise PermissionDenied


@pytest.mark.parametrize("guard", [deny, adeny, refuse])
@pytest.mark.parametrize("make", HANDLERS)
async def test_guard_denies(composed: Composed, make: Any, guard: Any) -> None:
    """A guard's False, or its PermissionDenied, is "Forbidden resource"."""
    handler = handler_of(use_guards(guard)(make()))
    context = context_of(handler, {"not": "an int"})
    with pytest.raises(PermissionDenied) as caught:
        await composed.answer_in(context)
    assert error_value(caught.value)["message"] == "Forbidden resource"


@pytest.mark.parametrize("guard", [deny, adeny])
async def test_nothing_is_decoded_before_a_guard(
    composed: Composed, guard: Any
) -> None:
    """What a guard refuses is never looked at, not even whether it is JSON."""
    read: list[Any] = []
    pipe = use_pipes(lambda value, parameter: read.append(value))
    handler = handler_of(pipe(use_guards(guard)(sync_handler())))
    context = context_of(handler)
    context.message.data = b"{"
    with pytest.raises(PermissionDenied):
        await composed.answer_in(context)
    assert read == []
    assert "_data" not in vars(context)


async def test_later_guard_is_not_asked(composed: Composed) -> None:
    """The first guard that denies is the last one asked."""
    recorder = Recorder()
    guards = use_guards(deny, recorder.part("second", admit))
    with pytest.raises(PermissionDenied):
        await composed.answer(handler_of(guards(sync_handler())), 1)
    assert recorder.notes == []


@pytest.mark.parametrize("make", [sync_handler, async_handler])
async def test_guard_that_forgets_to_await(composed: Composed, make: Any) -> None:
    """A coroutine is true whatever it would say: it lets nobody in."""

    def forgetful(context: Any) -> Any:
        return adeny(context)

    handler = handler_of(use_guards(forgetful)(make()))
    with pytest.raises(TypeError, match=r"Guard .* returned a coroutine: make it an"):
        await composed.answer(handler, 1)


class Staff:
    """A guard that is a class."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    async def __call__(self, context: MessageContext[Any]) -> bool:
        """Let those in who are known."""
        return bool(context.user)


async def test_guard_class(composed: Composed) -> None:
    """A guard may be a class with an async ``__call__``; it is made once."""
    one = handler_of(use_guards(Staff)(sync_handler()))
    other = handler_of(use_guards(Staff)(async_handler()))
    context = context_of(one, 1)
    context.user = "Ada"
    assert await composed.answer_in(context) == [1, SYNC]
    with pytest.raises(PermissionDenied):
        await composed.answer(other, 1)
    assert Staff.made == 1


# --- pipes and factories ----------------------------------------------------------


class Double:
    """A pipe that is a class."""

    def __call__(self, value: int, parameter: Any) -> int:
        """Change the payload."""
        return 2 * value


async def test_pipe_class(composed: Composed) -> None:
    """A pipe may be a class."""
    handler = handler_of(use_pipes(Double)(async_handler()))
    assert await composed.answer(handler, 2) == [4, ASYNC]


async def test_error_of_a_payload(composed: Composed) -> None:
    """A payload that does not fit its annotation is the caller's error."""
    with pytest.raises(PayloadError):
        await composed.answer(handler_of(async_handler()), "x")


async def test_injected_factories(composed: Composed) -> None:
    """A sync factory runs on a thread, an async one on the loop."""

    async def athread() -> str:
        return thread()

    @message_pattern("a")
    async def handler(
        data: int,
        one: Annotated[str, Inject(thread)],
        other: Annotated[str, Inject(athread)],
    ) -> list[str]:
        return [one, other]

    @message_pattern("a")
    async def alone(data: int, one: Annotated[str, Inject(thread)]) -> str:
        return one

    assert await composed.answer(handler_of(handler), 1) == [SYNC, ASYNC]
    assert await composed.answer(handler_of(alone), 1) == SYNC


# --- exception filters ------------------------------------------------------------


def fail(*args: Any) -> Any:
    """Fail."""
    raise ValueError("failed")


async def test_first_filter_answers(composed: Composed) -> None:
    """What a filter returns is the answer; those outside hear of nothing."""
    recorder = Recorder()

    class Filtered(Controller):
        filters = (recorder.part("outer", raise_again),)

        @use_filters(lambda error, context: f"{error} {context.data}")
        @message_pattern("a")
        def method(self, data: int) -> None:
            fail()

    assert await composed.answer(handler_of(Filtered.method, Filtered), 1) == "failed 1"
    assert recorder.notes == []


async def test_filter_raises_another_error(composed: Composed) -> None:
    """What a filter raises is the error."""

    def translate(error: Exception, context: Any) -> Any:
        raise RpcException({"code": 1}) from error

    handler = handler_of(use_filters(translate)(message_pattern("a")(fail)))
    with pytest.raises(RpcException) as caught:
        await composed.answer(handler, 1)
    assert caught.value.error == {"code": 1}


async def test_filter_hears_of_guards(composed: Composed) -> None:
    """Filters stand outside of the guards."""
    told = use_filters(lambda error, context: type(error).__name__)
    handler = handler_of(told(use_guards(deny)(sync_handler())))
    assert await composed.answer(handler, 1) == "PermissionDenied"


def breaking_stream() -> Any:
    """Make a stream that fails after an item."""

    @message_pattern("a")
    def handler(data: int) -> Iterator[Any]:
        yield data
        fail()

    return handler


def async_breaking_stream() -> Any:
    """Make the same as an async generator."""

    @message_pattern("a")
    async def handler(data: int) -> AsyncIterator[Any]:
        yield data
        fail()

    return handler


def tell(error: Exception, context: Any) -> str:
    """Answer with the error's text."""
    return str(error)


async def atell(error: Exception, context: Any) -> str:
    """Answer with the error's text."""
    return str(error)


@pytest.mark.parametrize("filter_", [tell, atell])
@pytest.mark.parametrize("make", [breaking_stream, async_breaking_stream])
async def test_filter_of_a_stream(composed: Composed, make: Any, filter_: Any) -> None:
    """What a stream raises on its way reaches the filters: the last item is theirs."""
    handler = handler_of(use_filters(filter_)(make()))
    assert await composed.answer(handler, 1) == [1, "failed"]


@pytest.mark.parametrize("filter_", [tell, atell])
@pytest.mark.parametrize("make", [sync_stream, async_stream])
async def test_filter_of_a_stream_that_never_begins(
    composed: Composed, make: Any, filter_: Any
) -> None:
    """An error before the first item reaches them as well."""
    handler = handler_of(use_filters(filter_)(use_guards(fail)(make())))
    assert await composed.answer(handler, 1) == ["failed"]


# --- interceptors around streams --------------------------------------------------


def doubled(get_response: Any) -> Any:
    """Change every item, as sync code."""

    def inner(context: Any) -> Any:
        return (2 * item for item in get_response(context))

    return inner


def adoubled(get_response: Any) -> Any:
    """Change every item, as async code."""

    async def inner(context: Any) -> Any:
        items = await get_response(context)
        return (2 * item async for item in items)

    return inner


@pytest.mark.parametrize("layers", [*itertools.product((doubled, adoubled), repeat=3)])
@pytest.mark.parametrize("make", [sync_stream, async_stream])
async def test_interceptors_see_items(
    composed: Composed, make: Any, layers: Any
) -> None:
    """Each sees the stream as its own kind: a sync or an async iterator."""
    handler = handler_of(use_interceptors(*layers)(make()))
    number, _ = await composed.answer(handler, 1)
    assert number == 8


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


# --- context, database ------------------------------------------------------------


def in_german(get_response: Any) -> Any:
    """Speak German."""

    async def inner(context: Any) -> Any:
        with translation.override("de"):
            return await get_response(context)

    return inner


async def test_language_reaches_the_threads(composed: Composed) -> None:
    """What async middleware sets is set for the sync handler on its thread."""

    @message_pattern("a")
    def handler(data: Any) -> list[Any]:
        return [translation.get_language(), thread()]

    assert await composed.answer(handler_of(handler), 1, (in_german,)) == ["de", SYNC]


async def test_language_reaches_the_loop(composed: Composed) -> None:
    """What a sync interceptor sets is set for the async handler inside."""

    def sync_german(get_response: Any) -> Any:
        def inner(context: Any) -> Any:
            with translation.override("de"):
                return get_response(context)

        return inner

    @message_pattern("a")
    async def handler(data: Any) -> list[Any]:
        return [translation.get_language(), thread()]

    handler_ = handler_of(use_interceptors(sync_german)(handler))
    assert await composed.answer(handler_, 1) == ["de", ASYNC]


async def test_attributes_reach_the_handler(composed: Composed) -> None:
    """Middleware leaves what it knows on the context, as on a request."""

    def identify(get_response: Any) -> Any:
        async def inner(context: Any) -> Any:
            context.user, context.tenant = "Ada", 7
            return await get_response(context)

        return inner

    @message_pattern("a")
    def handler(data: Any, context: MessageContext[Any]) -> list[Any]:
        return [context.user, vars(context)["tenant"]]

    assert await composed.answer(handler_of(handler), 1, (identify,)) == ["Ada", 7]


@pytest.mark.django_db(transaction=True)
async def test_sync_guard_may_use_the_database(composed: Composed) -> None:
    """A sync piece of an async handler is not on the loop, where Django refuses."""

    def is_empty(context: Any) -> bool:
        return not User.objects.exists()

    handler = handler_of(use_guards(is_empty)(async_handler()))
    assert await composed.answer(handler, 1) == [1, ASYNC]


@pytest.mark.django_db(transaction=True)
async def test_transaction_of_sync_middleware(composed: Composed) -> None:
    """A sync handler is in it, though async pieces stand in between."""

    def in_transaction(get_response: Any) -> Any:
        return transaction.atomic(get_response)

    async def aadmit(context: Any) -> bool:
        return True

    @use_guards(aadmit)
    @message_pattern("a")
    def handler(data: Any) -> list[Any]:
        return [connection.in_atomic_block, thread()]

    answer = await composed.answer(handler_of(handler), 1, (in_transaction,))
    assert answer == [True, SYNC]


async def test_threads_do_not_wait_for_threads() -> None:
    """A message never needs a second thread of the pool while it holds one."""
    composed = Composed(1)
    recorder = Recorder()
    kinds = (SYNC, ASYNC, SYNC, ASYNC)
    layers = [recorder.layer(str(n), kind) for n, kind in enumerate(kinds)]
    try:
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *(
                    composed.answer(handler_of(make()), 1, layers)
                    for make in (*HANDLERS, *HANDLERS)
                )
            )
        assert answers == [[1, kind] for kind in (*HANDLERS.values(),) * 2]
    finally:
        composed.stop()


@message_pattern("a", uses_database=True)
async def with_database(data: Any) -> Any:
    """Answer where async calls of the ORM run."""
    return await sync_to_async(thread)()


@message_pattern("a", uses_database=True)
async def stream_with_database(data: Any) -> AsyncIterator[Any]:
    """Answer where async calls of the ORM run."""
    yield await sync_to_async(thread)()
    yield await sync_to_async(thread)()


async def test_uses_database(composed: Composed) -> None:
    """The async ORM runs on a thread of the pool, for a stream until its end."""
    assert await composed.answer(handler_of(with_database), 1) == SYNC
    assert await composed.answer(handler_of(stream_with_database), 1) == [SYNC, SYNC]


# --- streams that are no generators -----------------------------------------------


async def aitems(data: int) -> AsyncIterator[Any]:
    """Yield where it runs."""
    yield data
    yield thread()


@message_pattern("a")
def returns_async_iterator(data: int) -> AsyncIterator[Any]:
    """Return an async iterator from a plain function."""
    return aitems(data)


@message_pattern("a")
async def awaits_async_iterator(data: int) -> AsyncIterator[Any]:
    """Return one from a coroutine function."""
    return aitems(data)


@message_pattern("a")
async def awaits_iterator(data: int) -> Iterator[Any]:
    """Return a sync iterator from a coroutine function."""
    return (item() for item in (lambda: data, thread))


@message_pattern("a")
def returns_iterator(data: int) -> Iterator[Any]:
    """Return one from a plain function."""
    return (item() for item in (lambda: data, thread))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (returns_async_iterator, ASYNC),
        (awaits_async_iterator, ASYNC),
        (awaits_iterator, SYNC),
        (returns_iterator, SYNC),
    ],
)
async def test_annotated_iterators(
    composed: Composed, function: Any, kind: str
) -> None:
    """The annotation alone makes a stream, whatever the function is."""
    assert await composed.answer(handler_of(function), 1) == [1, kind]
