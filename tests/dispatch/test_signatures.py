"""Signatures: what a function asks for."""

import functools
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.dispatch.payloads.annotations import MISSING
from django_microservices.dispatch.signatures import (
    Inject,
    Payload,
    is_context,
    name_of,
    resolve_hints,
    slots_of,
)
from django_microservices.wire.context import MessageContext

if TYPE_CHECKING:
    from decimal import Decimal


class Wire:
    """What one wire knows."""


AnyContext = MessageContext[Any]


class Service:
    """A class whose instances are called."""

    limit: "Decimal"

    def __init__(self, url: str = "") -> None:
        self.url = url

    def __call__(self, data: int) -> None:
        """Do nothing."""


def test_slots_tell_names_types_and_defaults() -> None:
    """In the order of the parameters; ``*args`` and ``**kwargs`` are nobody's."""

    def handler(data, *args, limit: int = 5, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN202
        ...

    data, limit = slots_of(handler)
    assert (data.name, data.annotation, data.default) == ("data", MISSING, MISSING)
    assert (limit.name, limit.annotation, limit.default) == ("limit", int, 5)
    assert (data.is_keyword, limit.is_keyword) == (False, True)


def test_a_marker_is_taken_out_of_the_annotation() -> None:
    """What else is said of the type stays."""
    meta = msgspec.Meta(ge=1)

    def handler(
        a: Annotated[int, Payload("a")], b: Annotated[int, meta, Payload("b")]
    ) -> None: ...

    a, b = slots_of(handler)
    assert a.annotation is int
    assert b.annotation == Annotated[int, meta]
    assert isinstance(a.marker, Payload)
    assert a.marker.key == "a"


def test_markers_show_what_they_are() -> None:
    """For errors that name them."""
    assert repr(Payload("id")) == "Payload('id')"
    assert repr(Inject("STOCK")) == "Inject('STOCK')"


@pytest.mark.parametrize(
    "annotation", [MessageContext, MessageContext[Wire], AnyContext, AnyContext | None]
)
def test_a_context_is_told_by_its_class(annotation: Any) -> None:
    """Of whatever wire, and where it may be missing."""
    assert is_context(annotation)


def test_a_marked_parameter_is_no_context() -> None:
    """``Inject`` says where it comes from."""

    def handler(
        a: Annotated[AnyContext, Inject("A")], b: AnyContext, c: int
    ) -> None: ...

    assert [slot.is_context for slot in slots_of(handler)] == [False, True, False]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Service, "url"),
        (Service(), "data"),
        (functools.partial(Service()), "data"),
        (Service().__call__, "data"),
    ],
)
def test_hints_are_found_on_any_callable(function: Any, expected: str) -> None:
    """Classes, instances, partials and methods; class attributes are not looked at."""
    assert expected in resolve_hints(function)


@pytest.mark.parametrize(
    "text", ["Decimal", "list[Decimal]", "msgspec.Nowhere", "int |"]
)
def test_an_unresolved_annotation_is_named(text: str) -> None:
    """With the handler, the parameter and the cure."""

    def handler(a: int, b: int) -> None: ...

    handler.__annotations__["b"] = text
    expected = r"handler: the annotation of parameter 'b' cannot .* `if TYPE_CHECKING:`"
    with pytest.raises(ImproperlyConfigured, match=expected):
        slots_of(handler)


def test_an_unresolved_return_annotation_is_named() -> None:
    """It shapes the answer, so it is read too."""

    def handler(a: int) -> "Decimal": ...  # type: ignore[empty-body]

    with pytest.raises(ImproperlyConfigured, match="the return annotation cannot"):
        slots_of(handler)


def test_functions_are_named_with_their_module() -> None:
    """A partial has no name of its own."""
    assert name_of(Service) == f"{__name__}.Service"
    assert name_of(functools.partial(int)).startswith("functools.functools.partial(")
