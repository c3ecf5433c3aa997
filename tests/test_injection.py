"""``inject`` on views and on any other function."""

from typing import Annotated, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.views import View

from django_microservices import Client, Inject, clients, inject

MATH = Annotated[Client, Inject("MATH")]


def tenant() -> str:
    """Make what is injected."""
    return "acme"


async def atenant() -> str:
    """Make what is injected."""
    return "acme"


@inject
def function(first: int, math: MATH, name: Annotated[str, Inject(tenant)]) -> Any:
    """Return what came."""
    return first, math, name


@inject
def view(
    request: HttpRequest, pk: int, name: Annotated[str, Inject(tenant)]
) -> HttpResponse:
    """Answer with what came."""
    return HttpResponse(f"{pk} {name}")


@inject
async def aview(
    request: HttpRequest, name: Annotated[str, Inject(atenant)]
) -> HttpResponse:
    """Answer with what came."""
    return HttpResponse(name)


@inject
class ClassView(View):
    """A class-based view."""

    def get(
        self, request: HttpRequest, name: Annotated[str, Inject(tenant)]
    ) -> HttpResponse:
        """Answer with what came."""
        return HttpResponse(name)


class Plain(View):
    """A class-based view that is injected where it is routed."""

    def get(
        self, request: HttpRequest, name: Annotated[str, Inject(tenant)]
    ) -> HttpResponse:
        """Answer with what came."""
        return HttpResponse(name)


def test_function() -> None:
    """Any function gets clients of settings and what factories make."""
    call: Any = function
    assert call(1) == (1, clients["MATH"], "acme")


def test_what_is_passed_counts() -> None:
    """What the caller passes by name is left alone."""
    call: Any = function
    assert call(1, name="other")[2] == "other"


def test_view(rf: RequestFactory) -> None:
    """A function view keeps the arguments of its route."""
    call: Any = view
    assert call(rf.get("/"), pk=7).content == b"7 acme"


async def test_async_view(rf: RequestFactory) -> None:
    """An async view may have async factories."""
    call: Any = aview
    assert (await call(rf.get("/"))).content == b"acme"


@pytest.mark.parametrize("routed", [ClassView.as_view(), inject(Plain.as_view())])
def test_class_based_view(rf: RequestFactory, routed: Any) -> None:
    """A class-based view is injected over the class or where it is routed."""
    assert routed(rf.get("/")).content == b"acme"
