"""What is injected into functions and classes that are no handlers."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from django_microservices.dispatch.injection import inject, inject_plan
from django_microservices.dispatch.signatures import Inject, slots_of
from django_microservices.wire.context import MessageContext

from .services import STOCK, Made, Service, Stock, aservice, resolve_client

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
