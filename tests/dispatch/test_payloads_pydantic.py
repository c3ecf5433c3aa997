"""Payloads: what pydantic reads."""

import datetime
from typing import Annotated, Any

import msgspec
import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import SynchronousOnlyOperation
from pydantic import BaseModel, Field, PositiveInt
from pydantic.dataclasses import dataclass

from django_microservices.dispatch.payloads import (
    PayloadError,
    decoder_for,
    encoder_for,
)
from django_microservices.dispatch.payloads.pydantic import (
    claims,
    converter_for,
    may_block,
)
from django_microservices.exceptions import EncodingError


class Item(BaseModel):
    """A part of a payload."""

    sku: str
    count: PositiveInt = 1


class Order(BaseModel):
    """A payload with an alias."""

    items: list[Item]
    placed_at: datetime.datetime | None = Field(None, alias="placedAt")


class UserOut(BaseModel):
    """Some fields of a user."""

    username: str


@dataclass
class Point:
    """A dataclass of pydantic's."""

    x: int


class Opaque:
    """A class that pydantic has no schema for."""


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Item, True),
        (Point, True),
        (list[Item], True),
        (Item | None, True),
        (PositiveInt, True),
        (Annotated[int, Field(gt=0)], True),
        (list[int], False),
        (Annotated[int, msgspec.Meta(ge=1)], False),
    ],
)
def test_types_are_claimed_by_what_they_name(annotation: Any, expected: object) -> None:
    """Models, dataclasses, types and constraints, at any depth."""
    assert claims(annotation) is expected


def test_it_needs_no_thread() -> None:
    """Validation is computing."""
    assert not may_block


@pytest.mark.parametrize(
    ("annotation", "raw", "expected"),
    [
        (Item, b'{"sku":"a"}', Item(sku="a")),
        (list[Item], b'[{"sku":"a"}]', [Item(sku="a")]),
        (Point, b'{"x":1}', Point(1)),
    ],
)
def test_types_are_read(annotation: Any, raw: bytes, expected: Any) -> None:
    """From JSON, and from what another codec decoded."""
    assert decoder_for(annotation)(msgspec.Raw(raw)) == expected
    assert converter_for(annotation)(msgspec.json.decode(raw)) == expected


@pytest.mark.parametrize("encoded", [True, False])
def test_all_errors_are_reported(encoded: object) -> None:
    """Each with its path, and without the values that the caller sent."""
    raw = b'{"items":[{"sku":1},{"sku":"a","count":0}]}'
    read = decoder_for(Order) if encoded else converter_for(Order)
    with pytest.raises(PayloadError) as caught:
        read(raw if encoded else msgspec.json.decode(raw))
    assert caught.value.errors == [
        {"path": "items[0].sku", "message": "Input should be a valid string"},
        {"path": "items[1].count", "message": "Input should be greater than 0"},
    ]


def test_half_a_surrogate_is_read_as_elsewhere() -> None:
    """What pydantic's own parser refuses is decoded first, then validated."""
    assert decoder_for(Item)(rb'{"sku":"\ud83d"}').sku == "\ud83d"


def test_a_type_without_a_schema_is_refused_at_once() -> None:
    """At registration, as a ``TypeError``."""
    with pytest.raises(TypeError, match="Opaque"):
        decoder_for(Annotated[Opaque, Field(description="?")])


def test_a_model_is_written_by_alias() -> None:
    """What is read under an alias is written under it."""
    moment = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    order = Order(items=[], placedAt=moment)
    assert (
        encoder_for(Order)(order) == b'{"items":[],"placedAt":"2020-01-02T00:00:00Z"}'
    )


@pytest.mark.parametrize("answer", [{"username": "ada"}, User(username="ada")])
def test_an_answer_is_shaped_to_the_model(answer: Any) -> None:
    """A dict or a model instance gives the fields."""
    assert encoder_for(UserOut)(answer) == b'{"username":"ada"}'


@pytest.mark.django_db
def test_a_queryset_is_shaped_to_a_list() -> None:
    """Rows are fetched, and each gives its fields."""
    User.objects.create(username="ada")
    assert encoder_for(list[UserOut])(User.objects.all()) == b'[{"username":"ada"}]'


def test_an_answer_that_does_not_fit_is_refused() -> None:
    """The error says what was promised and where it was not kept."""
    with pytest.raises(EncodingError, match="does not fit UserOut: username: Field"):
        encoder_for(UserOut)({})


def test_an_answer_that_cannot_be_written_is_refused() -> None:
    """As for any other answer."""
    with pytest.raises(EncodingError, match="surrogate"):
        encoder_for(UserOut)(UserOut.model_construct(username="\ud83d"))


class TypeOut(BaseModel):
    """Some fields of a content type."""

    model: str


class PermissionOut(BaseModel):
    """Some fields of a permission, and of what it points to."""

    content_type: TypeOut


async def test_rows_are_not_fetched_on_a_loop() -> None:
    """Django says so, and not pydantic that something is missing."""
    with pytest.raises(SynchronousOnlyOperation):
        encoder_for(PermissionOut)(Permission(content_type_id=1))
