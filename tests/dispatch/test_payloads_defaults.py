"""Payloads: the defaults of dataclasses travel on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from django_microservices.dispatch.payloads.answers import shaping_encoder
from django_microservices.dispatch.payloads.defaults import completing
from django_microservices.dispatch.payloads.members import Member, members_reader
from django_microservices.dispatch.payloads.native import converter_for, decoder_for
from django_microservices.endpoints.calls import Call
from django_microservices.endpoints.exchange import value_of
from django_microservices.wire.codecs import encode
from django_microservices.wire.patterns import Pattern

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """A plain dataclass."""

    sku: str
    currency: str = "EUR"
    notes: list[str] = field(default_factory=list)


COMPLETE = {"sku": "a", "currency": "EUR", "notes": []}


class Basket(msgspec.Struct):
    """A type that contains them."""

    orders: dict[str, tuple[Order, ...]]
    next: "Basket | None" = None


class Row(TypedDict):
    """A dict that contains one."""

    order: Order


@dataclass
class Page(Generic[T]):
    """A generic dataclass."""

    items: list[T]
    number: int = 1


@dataclass(slots=True)
class Slotted:
    """A dataclass whose instances have all that they say."""

    sku: str
    currency: str = "EUR"


@attrs.define(slots=False)
class Attrs:
    """An attrs class."""

    sku: str
    currency: str = "EUR"


READERS: list[Callable[[Any], Callable[[bytes], Any]]] = [
    decoder_for,
    lambda annotation: lambda raw: converter_for(annotation)(msgspec.json.decode(raw)),
    lambda annotation: (
        lambda raw: value_of(Call(Pattern.of("orders"), None, returns=annotation), raw)
    ),
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("annotation", "raw", "expected"),
    [
        (Order, b'{"sku":"a"}', COMPLETE),
        (list[Order], b'[{"sku":"a"}]', [COMPLETE]),
        (Order | None, b'{"sku":"a"}', COMPLETE),
        (Row, b'{"order":{"sku":"a"}}', {"order": COMPLETE}),
        (
            Page[Order],
            b'{"items":[{"sku":"a"}]}',
            {"items": [COMPLETE], "number": 1},
        ),
        (
            tuple[Page[Order], Page[int]],
            b'[{"items":[{"sku":"a"}]},{"items":[1],"number":2}]',
            [{"items": [COMPLETE], "number": 1}, {"items": [1], "number": 2}],
        ),
        (
            Basket,
            b'{"orders":{"x":[{"sku":"a"}]},"next":{"orders":{}}}',
            {"orders": {"x": [COMPLETE]}, "next": {"orders": {}, "next": None}},
        ),
    ],
)
def test_what_was_read_is_sent_on_complete(
    reader: Any, annotation: Any, raw: bytes, expected: Any
) -> None:
    """A field that the sender left out has its default, on the next wire too."""
    assert msgspec.json.decode(encode(reader(annotation)(raw))) == expected


@pytest.mark.parametrize(
    ("annotation", "answer", "expected"),
    [
        (Order, {"sku": "a"}, COMPLETE),
        (list[Order], [{"sku": "a"}, Order("a")], [COMPLETE, COMPLETE]),
    ],
)
def test_a_dict_is_answered_with_the_defaults_of_its_type(
    annotation: Any, answer: Any, expected: Any
) -> None:
    """The annotation of the answer says what the caller gets."""
    assert msgspec.json.decode(shaping_encoder(annotation)(answer)) == expected


@pytest.mark.parametrize("data", [b'{"o":{"sku":"a"}}', {"o": {"sku": "a"}}])
def test_a_member_is_complete(data: Any) -> None:
    """``Payload("key")`` reads as a whole payload is read."""
    (order,) = members_reader([Member("o", Order)])(data)
    assert msgspec.json.decode(encode(order)) == COMPLETE


def test_a_given_field_stays() -> None:
    """A default is for what was left out."""
    order = decoder_for(Order)(b'{"sku":"a","currency":"CHF"}')
    assert order == Order("a", "CHF")


def test_an_answer_that_contains_itself_is_completed() -> None:
    """Looking for fields ends."""

    @dataclass
    class Node:
        links: list[Any]
        weight: int = 1

    node = Node([])
    node.links.append(node)
    assert completing(lambda value: value, Node)(node) is node


def test_a_factory_is_called_for_each() -> None:
    """Two instances share no list, though a class above has a scalar."""

    @dataclass
    class Plain:
        notes: Any = None

    @dataclass
    class Listed(Plain):
        notes: Any = field(default_factory=list)

    one, other = decoder_for(list[Listed])(b"[{},{}]")
    assert one.notes == other.notes == []
    assert one.notes is not other.notes


@pytest.mark.parametrize("annotation", [Slotted, Attrs, list[int]])
def test_other_types_cost_nothing(annotation: Any) -> None:
    """What reads them is msgspec's own."""
    read = msgspec.json.Decoder(annotation).decode
    assert completing(read, annotation) is read
