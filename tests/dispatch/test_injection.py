"""Injection: clients, factories and the context, for any function."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from django_microservices.dispatch.injection import (
    Part,
    cache_of,
    inject,
    inject_plan,
    provider_of,
)
from django_microservices.dispatch.signatures import Inject, slots_of
from django_microservices.wire.context import MessageContext, current
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern

STOCK = object()


def resolve_client(name: str) -> Any:
    """Find the only client."""
    return {"STOCK": STOCK}[name]


class Service:
    """What factories make."""


async def aservice() -> Service:
    """Make a service on the loop."""
    return Service()


class AsyncFactory:
    """An instance whose call is async."""

    async def __call__(self) -> Service:
        """Make a service on the loop."""
        return Service()


def of_message(context: MessageContext[Any]) -> str:
    """Ask for the context."""
    return context.pattern


def of_any(context: MessageContext[Any] | None = None) -> str:
    """Take the context where there is one."""
    return context.pattern if context is not None else "none"


Stock = Annotated[Any, Inject("STOCK")]
Made = Annotated[Service, Inject(Service)]


@pytest.fixture
def message() -> MessageContext[Any]:
    """A message."""
    return MessageContext(Message(Pattern.of("p"), b"1"))


@pytest.fixture
def handled(message: MessageContext[Any]) -> Iterator[MessageContext[Any]]:
    """A message that is being handled here."""
    token = current.set(message)
    yield message
    current.reset(token)


def provided(source: Any, context: Any) -> Any:
    """Return what a source gives for a context."""

    def function(value: Annotated[Any, Inject(source)]) -> None: ...

    part = provider_of(function, slots_of(function)[0], resolve_client)
    return part.call(context, cache_of(context))


# --- steps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(Service, False), (aservice, True), (AsyncFactory(), True)],
)
def test_a_step_knows_how_it_is_called(function: Any, is_async: object) -> None:
    """A sync step may use the database; an async one has its own ways."""
    part = Part.of(function)
    assert part.is_async is is_async
    assert part.may_block is not is_async


# --- providers ----------------------------------------------------------------------


def test_a_name_gives_the_client() -> None:
    """With or without a message."""
    assert provided("STOCK", None) is STOCK


def test_a_factory_is_called_once_for_a_message(message: Any) -> None:
    """Without a message, each time."""
    assert provided(Service, message) is provided(Service, message)
    assert provided(Service, None) is not provided(Service, None)


def test_a_factory_gets_the_context_if_it_asks(message: Any) -> None:
    """By a required parameter, or by one annotated with it."""
    assert provided(of_message, message) == "p"
    assert provided(of_any, message) == "p"
    assert provided(lambda any_name: any_name, message) is message
    assert provided(lambda limit=5: limit, message) == 5


def test_a_factory_that_tells_no_signature_gets_nothing(message: Any) -> None:
    """Some builtins do not tell."""
    assert provided(dict, message) == {}


def test_a_factory_may_do_without_a_message() -> None:
    """If its parameter has a default."""
    assert provided(of_any, None) == "none"


def test_a_factory_that_needs_a_message_says_so() -> None:
    """By its name."""
    with pytest.raises(LookupError, match=r"of_message.* no message is being"):
        provided(of_message, None)


def wants_two(a: int, b: int) -> None:
    """Require more than anybody has."""


def wants_a_name(*, a: int) -> None:
    """Require a name that nobody knows."""


@pytest.mark.parametrize(
    ("factory", "names"), [(wants_two, "a, b"), (wants_a_name, "a")]
)
def test_a_factory_that_requires_more_is_refused(factory: Any, names: str) -> None:
    """At registration, with the names."""
    with pytest.raises(ImproperlyConfigured, match=f"requires {names}"):
        provided(factory, None)


def test_the_context_is_provided_to_handlers(message: Any) -> None:
    """Where a parameter is annotated with it."""

    def handler(context: MessageContext[Any]) -> None: ...

    part = provider_of(handler, slots_of(handler)[0], resolve_client)
    assert part.call(message, {}) is message


def test_a_source_is_a_name_or_a_factory() -> None:
    """Anything else is refused with the parameter's name."""
    with pytest.raises(
        ImproperlyConfigured, match=r"parameter 'value': Inject\(5\) is"
    ):
        provided(5, None)


# --- functions ----------------------------------------------------------------------


def test_a_function_is_called_with_what_is_injected() -> None:
    """Wherever its parameters stand among the caller's."""

    def view(request: int, stock: Stock, pk: int, *, made: Made) -> tuple[Any, ...]:
        """Answer a request."""
        return request, stock, pk, type(made)

    injected: Any = inject(view, resolve_client)
    assert injected(1, pk=2) == (1, STOCK, 2, Service)
    assert injected(1, 2) == (1, STOCK, 2, Service)
    assert injected.__doc__ == "Answer a request."


def test_what_is_passed_by_name_is_left_alone() -> None:
    """A test may hand over a stand-in."""

    def view(request: int, stock: Stock) -> Any:
        return stock

    injected: Any = inject(view, resolve_client)
    assert injected(1, stock="fake") == "fake"


def test_a_wrong_call_is_a_type_error() -> None:
    """As without us: too many arguments, or one given twice."""

    def view(request: int, stock: Stock, pk: int) -> None: ...

    injected: Any = inject(view, resolve_client)
    with pytest.raises(TypeError):
        injected(1, 2, 3)
    with pytest.raises(TypeError):
        injected(1, 2, pk=2)


def test_the_signature_is_without_what_is_injected() -> None:
    """So that tools, and we, see what the caller passes."""

    def view(request: int, stock: Stock) -> None: ...

    injected = inject(view, resolve_client)
    assert [slot.name for slot in slots_of(injected)] == ["request"]
    assert inject(injected, resolve_client) is injected


def test_a_function_that_asks_for_nothing_is_left_alone() -> None:
    """No wrapper."""

    def view(request: int) -> None: ...

    assert inject(view, resolve_client) is view


def test_the_context_is_filled_while_a_message_is_handled(handled: Any) -> None:
    """Unless the caller passes one."""

    def function(a: int, context: MessageContext[Any] | None = None) -> Any:
        return context

    injected = inject(function, resolve_client)
    assert injected(1) is handled
    assert injected(1, None) is None
    assert injected(1, context=None) is None


def test_the_context_is_the_callers_without_a_message() -> None:
    """Nobody else has one."""

    def function(context: MessageContext[Any] | None = None) -> Any:
        return context

    assert inject(function, resolve_client)() is None


def test_factories_are_called_once_per_message(handled: Any) -> None:
    """All functions that a message passes share what they made."""

    def function(made: Made) -> Any:
        return made

    injected: Any = inject(function, resolve_client)
    assert injected() is injected()


# --- async functions ----------------------------------------------------------------


async def test_an_async_function_stays_one() -> None:
    """Async factories are awaited; sync ones run on a thread, as sync views do."""

    def on_thread() -> threading.Thread:
        return threading.current_thread()

    async def view(
        a: int,
        thread: Annotated[Any, Inject(on_thread)],
        service: Annotated[Service, Inject(aservice)],
        stock: Stock = None,
    ) -> Any:
        return a, thread, service, stock

    injected: Any = inject(view, resolve_client)
    assert asyncio.iscoroutinefunction(injected)
    a, thread, service, stock = await injected(1, stock=2)
    assert (a, stock) == (1, 2)
    assert thread is not threading.current_thread()
    assert isinstance(service, Service)


async def test_an_async_factory_is_called_once_per_message(handled: Any) -> None:
    """As a sync one is."""

    async def function(service: Annotated[Service, Inject(aservice)]) -> Any:
        return service

    injected: Any = inject(function, resolve_client)
    assert await injected() is await injected()


def test_an_async_factory_needs_an_async_function() -> None:
    """Said at once, with the parameter's name."""

    def view(service: Annotated[Service, Inject(aservice)]) -> None: ...

    with pytest.raises(ImproperlyConfigured, match="parameter 'service' is async"):
        inject_plan(view, resolve_client)


async def test_an_async_generator_may_have_sync_sources() -> None:
    """It is called, not awaited."""

    async def numbers(stock: Stock) -> AsyncIterator[Any]:
        yield stock

    injected: Any = inject(numbers, resolve_client)
    assert [item async for item in injected()] == [STOCK]


# --- classes ------------------------------------------------------------------------


def request_of(verb: str = "get") -> HttpRequest:
    """Make a request."""
    request: HttpRequest = getattr(RequestFactory(), verb)("/")
    return request


class Base(View):
    """A view whose methods are inherited."""

    def get(self, request: HttpRequest, made: Made, pk: int = 0) -> HttpResponse:
        """Answer with what was made."""
        return HttpResponse(f"{type(made).__name__} {pk}")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Answer with nothing."""
        return HttpResponse()


def test_the_methods_of_a_view_are_injected() -> None:
    """For HTTP verbs, its own or inherited; the base stays as it is."""

    class Page(Base): ...

    assert inject(Page, resolve_client) is Page
    view: Any = Page.as_view()
    assert view(request_of(), pk=5).content == b"Service 5"
    assert view(request_of("post")).status_code == 200
    with pytest.raises(TypeError):
        Base.as_view()(request_of())


async def test_an_async_view_stays_one() -> None:
    """Django asks the class."""

    class Page(View):
        async def get(self, request: HttpRequest, stock: Stock) -> HttpResponse:
            return HttpResponse(str(stock is STOCK))

    view: Any = inject(Page, resolve_client).as_view()
    assert asyncio.iscoroutinefunction(view)
    assert (await view(request_of())).content == b"True"


def test_what_as_view_returned_keeps_its_decorators() -> None:
    """The class behind it is changed, nothing around it is."""

    @method_decorator(csrf_exempt, name="dispatch")
    class Page(Base): ...

    view: Any = Page.as_view()
    assert inject(view, resolve_client) is view
    assert view.csrf_exempt
    assert view(request_of()).content == b"Service 0"


def test_the_own_methods_of_any_class_are_injected() -> None:
    """Its constructor too."""

    class Shop:
        limit = 5

        def __init__(self, stock: Stock) -> None:
            self.stock = stock

    shop: Any = inject(Shop, resolve_client)
    assert shop().stock is STOCK
