"""Payloads: reading annotations."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NoReturn,
    Protocol,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import pytest
from django.contrib.auth.models import User, UserManager
from django.db.models import QuerySet
from django.utils.functional import Promise

from django_microservices.dispatch.payloads.annotations import (
    MISSING,
    admits_unset,
    alternatives,
    default_of,
    is_plain,
    is_subclass,
    parts_of,
    unencodable_reason,
    without_unset,
)
from django_microservices.wire.messages import UNSET, UnsetType


class Alias:
    """What ``type X = int | UnsetType`` makes, from Python 3.12 on."""

    __value__ = int | UnsetType


def test_alternatives_are_the_members_of_a_union() -> None:
    """Metadata and aliases are seen through."""
    annotation = Annotated[str | Annotated[int, 1], 2] | None
    assert list(alternatives(annotation)) == [str, int, type(None)]
    assert list(alternatives(Alias)) == [int, UnsetType]


def test_parts_are_everything_that_is_named() -> None:
    """Arguments and metadata at any depth."""
    parts = list(parts_of(dict[str, Annotated[int, "meta"]]))
    assert parts[1:2] == [str]
    assert parts[3:] == [int, "meta"]


@pytest.mark.parametrize("annotation", [Any, object, MISSING])
def test_plain_python_is_asked_for_by_any(annotation: Any) -> None:
    """No annotation, ``Any`` and ``object`` mean plain Python."""
    assert is_plain(annotation)
    assert not is_plain(dict)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(int | UnsetType, True), (Any, True), (Alias, True), (int | None, False)],
)
def test_unset_is_admitted_by_name(annotation: Any, expected: object) -> None:
    """``UnsetType`` in a union, or ``Any``, admits a missing payload."""
    assert admits_unset(annotation) is expected


def test_the_default_of_what_admits_unset_is_unset() -> None:
    """A default of the user's own comes first."""
    assert default_of(int | UnsetType, MISSING) is UNSET
    assert default_of(int | UnsetType, 1) == 1
    assert default_of(int, MISSING) is MISSING


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int | UnsetType, int),
        (int | str | UnsetType, int | str),
        (Alias, int),
        (Annotated[int | UnsetType, 1], Annotated[int, 1]),
        (int, int),
    ],
)
def test_unset_is_taken_out(annotation: Any, expected: Any) -> None:
    """What is left is what a payload that came may be."""
    assert without_unset(annotation) == expected


def test_only_classes_are_subclasses() -> None:
    """A generic is no class."""
    assert is_subclass(bool, str, int)
    assert not is_subclass(list[int], list)


@pytest.mark.parametrize("annotation", [User, User | None, list[User]])
def test_a_model_cannot_travel(annotation: Any) -> None:
    """A bare model as an answer is found, wherever it stands, with the cure."""
    assert "User is a model" in str(unencodable_reason(annotation))


@pytest.mark.parametrize("annotation", [QuerySet, QuerySet[User], UserManager])
def test_a_queryset_cannot_travel(annotation: Any) -> None:
    """A QuerySet or a manager as an answer is found."""
    assert "A QuerySet cannot travel" in str(unencodable_reason(annotation))


class Plain:
    """A class that says nothing of its fields."""


class Base:
    """One that has fields where it is derived from."""


@dataclass
class Derived(Base):
    """A type with fields."""

    x: Plain | None = None


class Half(Plain):
    """Says no more than what it derives from."""


class Shape(Protocol):
    """What any class may have."""

    x: int


class Tags(dict[str, int]):
    """A builtin of one's own."""


class Unresolved(TypedDict):
    """Its members are not known here."""

    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "annotation",
    [Plain, list[Plain], Plain | None, dict[str, Half], complex, type, Path],
)
def test_a_plain_class_cannot_travel(annotation: Any) -> None:
    """Neither it nor what derives from it has fields that are known."""
    assert "cannot travel as JSON" in str(unencodable_reason(annotation))


ENCODED = [
    *(int, list[dict[str, int]], None, Any, object, TypeVar("T"), Literal["a"]),
    *(Base, Derived, Shape, Tags, OrderedDict, Unresolved, Enum, NoReturn),
    *(Iterable[int], Mapping[str, Any], Callable[[int], str], Decimal, UUID, Promise),
    *(Annotated[int, Plain], "Unresolved", NewType("Id", int), date, IntEnum),
]


@pytest.mark.parametrize("annotation", ENCODED)
def test_anything_else_may_travel(annotation: Any) -> None:
    """No reason is given where none is known."""
    assert unencodable_reason(annotation) is None
