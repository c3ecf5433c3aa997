"""Payloads: what msgspec reads."""

import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest

from django_microservices.dispatch.payloads import PayloadError
from django_microservices.dispatch.payloads.native import (
    claims,
    converter_for,
    decoder_for,
    encoder_for,
    may_block,
)


class Item(msgspec.Struct):
    """A typed part of a payload."""

    sku: str


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """A typed payload."""

    items: list[Item]
    prices: dict[str, int] = {}


@dataclass
class Point:
    """A dataclass."""

    x: int


@attrs.define
class Line:
    """An attrs class."""

    x: int


class Row(TypedDict):
    """A TypedDict."""

    x: int


class Size(enum.Enum):
    """An Enum."""

    SMALL = "small"


class Unknown:
    """A class that says nothing of its fields."""


def errors_of(annotation: Any, raw: bytes) -> list[tuple[str, str]]:
    """Return the paths and texts that both ways of reading report alike."""
    found = []
    for read, payload in (
        (decoder_for(annotation), raw),
        (converter_for(annotation), msgspec.json.decode(raw)),
    ):
        with pytest.raises(PayloadError) as caught:
            read(payload)
        found.append([(e["path"], e["message"]) for e in caught.value.errors])
    assert found[0] == found[1]
    return found[0]


def test_it_claims_everything() -> None:
    """It is asked last, and needs no thread."""
    assert claims(Unknown)
    assert not may_block


@pytest.mark.parametrize(
    ("annotation", "raw", "expected"),
    [
        (int, b"1", 1),
        (list[int], b"[1]", [1]),
        (set[int], b"[1]", {1}),
        (tuple[int, str], b'[1,"a"]', (1, "a")),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (Literal["a", "b"], b'"a"', "a"),
        (int | None, b"null", None),
        (Annotated[int, msgspec.Meta(ge=1)], b"1", 1),
        (Point, b'{"x":1}', Point(1)),
        (Line, b'{"x":1}', Line(1)),
        (Row, b'{"x":1}', {"x": 1}),
        (Size, b'"small"', Size.SMALL),
        (decimal.Decimal, b'"1.5"', decimal.Decimal("1.5")),
        (uuid.UUID, b'"00000000-0000-0000-0000-000000000001"', uuid.UUID(int=1)),
        (
            datetime.datetime,
            b'"2020-01-02T03:04:05.678Z"',
            datetime.datetime(2020, 1, 2, 3, 4, 5, 678000, datetime.UTC),
        ),
        (Order, b'{"items":[{"sku":"a"}]}', Order([Item("a")])),
        (Any, b'{"a":[null]}', {"a": [None]}),
    ],
)
def test_types_are_read(annotation: Any, raw: bytes, expected: Any) -> None:
    """From JSON, and from what another codec decoded."""
    assert decoder_for(annotation)(raw) == expected
    assert converter_for(annotation)(msgspec.json.decode(raw)) == expected


@pytest.mark.parametrize(
    ("annotation", "raw", "path", "message"),
    [
        (int, b'"1"', "", "Expected `int`, got `str`"),
        (Annotated[int, msgspec.Meta(ge=1)], b"0", "", "Expected `int` >= 1"),
        (
            Order,
            b'{"items":[{"sku":1}]}',
            "items[0].sku",
            "Expected `str`, got `int`",
        ),
        (list[Item], b'[{"sku":1}]', "[0].sku", "Expected `str`, got `int`"),
        (
            Order,
            b'{"items":[],"prices":{"k":"x"}}',
            "prices[...]",
            "Expected `int`, got `str`",
        ),
        (
            Order,
            b'{"items":[{}]}',
            "items[0].sku",
            "Object missing required field `sku`",
        ),
        (Order, b"{}", "items", "Object missing required field `items`"),
        (
            Order,
            b'{"items":[],"more":1}',
            "more",
            "Object contains unknown field `more`",
        ),
        (dict[int, int], b'{"k":1}', "", "Expected `int`, got `str`"),
    ],
)
def test_errors_say_where(annotation: Any, raw: bytes, path: str, message: str) -> None:
    """The path is the caller's, down to the member that is missing or unknown."""
    assert errors_of(annotation, raw) == [(path, message)]


def test_a_payload_in_an_envelope_is_read() -> None:
    """A part of an envelope needs no copy."""
    assert decoder_for(Item)(msgspec.Raw(b'{"sku":"a"}')) == Item("a")


def test_half_a_surrogate_is_read() -> None:
    """JavaScript writes text that msgspec refuses and ``json`` reads."""
    assert decoder_for(list[str])(msgspec.Raw(rb'["\ud83d"]')) == ["\ud83d"]


def test_what_is_not_json_is_the_callers_error() -> None:
    """An unreadable payload is an error like any other."""
    with pytest.raises(PayloadError, match="Not readable"):
        decoder_for(list[int])(b"[1")


@pytest.mark.parametrize(
    ("annotation", "hint"),
    [(list[Unknown], "name a type that has fields"), (list[object], "use Any")],
)
def test_a_class_that_nothing_reads_is_refused_at_once(
    annotation: Any, hint: str
) -> None:
    """At registration rather than with every message."""
    with pytest.raises(TypeError, match=hint):
        decoder_for(annotation)
    with pytest.raises(TypeError, match=hint):
        converter_for(annotation)


async def test_a_stream_is_read_item_by_item() -> None:
    """An async iterator of payloads gives each item its type."""

    async def stream() -> AsyncIterator[Any]:
        yield {"sku": "a"}
        yield b'{"sku":"b"}'

    items = converter_for(AsyncIterator[Item])(stream())
    assert [item async for item in items] == [Item("a"), Item("b")]


def test_a_stream_is_not_read_from_json() -> None:
    """A single payload is no stream."""
    with pytest.raises(PayloadError, match=r"Expected a stream\."):
        decoder_for(AsyncIterator[int])(b"[1]")


def test_plain_answers_are_encoded_as_they_are() -> None:
    """No annotation shapes nothing."""
    assert encoder_for(Any)({"a": 1}) == b'{"a":1}'


def test_typed_answers_are_shaped() -> None:
    """An annotation with fields takes them from what the handler returns."""
    assert encoder_for(Item)({"sku": "a", "secret": 1}) == b'{"sku":"a"}'


# --- what the type's own code raises ------------------------------------------------


def check(value: str) -> None:
    """Do what a ``__post_init__`` may: refuse on purpose, by accident, and fail."""
    match value:
        case "rule":
            message = "the rule"
            raise ValueError(message)
        case "secret":
            int("db-password")
        case "told":
            message = "Told on purpose."
            raise PayloadError.of(message, "y")
        case "defect":
            len(None)  # type: ignore[arg-type]


class CheckedStruct(msgspec.Struct):
    """A Struct with rules."""

    x: str

    def __post_init__(self) -> None:
        """Check it."""
        check(self.x)


@dataclass
class CheckedDataclass:
    """A dataclass with rules."""

    x: str

    def __post_init__(self) -> None:
        """Check it."""
        check(self.x)


@attrs.define
class CheckedAttrs:
    """An attrs class with rules."""

    x: str = attrs.field(validator=lambda _, __, value: check(value))


class CheckedRow(TypedDict):
    """A TypedDict of what has rules."""

    item: CheckedStruct


CHECKED = [
    (CheckedStruct, b'{"x":"%s"}', ""),
    (CheckedDataclass, b'{"x":"%s"}', ""),
    (CheckedAttrs, b'{"x":"%s"}', ""),
    (CheckedRow, b'{"item":{"x":"%s"}}', "item"),
    (list[CheckedStruct], b'[{"x":"%s"}]', "[0]"),
]


@pytest.mark.parametrize("said", [b"rule", b"secret"])
@pytest.mark.parametrize(("annotation", "raw", "path"), CHECKED)
def test_a_value_error_of_the_type_names_the_place_only(
    annotation: Any,
    raw: bytes,
    path: str,
    said: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its words may be anybody's, so they are in the log."""
    assert errors_of(annotation, raw % said) == [(path, "Invalid value")]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    words = "the rule" if said == b"rule" else "db-password"
    assert all(words in record.message for record in caplog.records)


@pytest.mark.parametrize(("annotation", "raw", "path"), CHECKED)
def test_a_payload_error_of_the_type_is_for_the_caller(
    annotation: Any, raw: bytes, path: str
) -> None:
    """That class was made to be shown."""
    at = f"{path}.y".removeprefix(".")
    assert errors_of(annotation, raw % b"told") == [(at, "Told on purpose.")]


@pytest.mark.parametrize(("annotation", "raw", "path"), CHECKED)
def test_a_type_error_of_the_type_is_a_defect(
    annotation: Any, raw: bytes, path: str
) -> None:
    """It is raised as it was, with its own traceback."""
    reads = (decoder_for(annotation), raw % b"defect")
    converts = (converter_for(annotation), msgspec.json.decode(raw % b"defect"))
    for read, payload in (reads, converts):
        with pytest.raises(TypeError, match="NoneType") as caught:
            read(payload)
        assert caught.traceback[-1].name == "check", path
