"""Values of settings, held against annotations."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Protocol, Required, TypedDict

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject, lazystr

from django_microservices.schema import (
    check_keys,
    imported,
    items,
    number,
    read,
    unknown,
    whole,
)

DICT = "collections.OrderedDict"


class Options(TypedDict, total=False):
    """A nested mapping."""

    name: Required[str]
    password: str
    size: NotRequired[int]


class Shape(Protocol):
    """What nothing is checked against."""

    def area(self) -> float:
        """Measure."""


class Serializer:
    """Nest's kind of a seam: an object with a method."""

    def serialize(self, value: Any) -> Any:
        """Return it."""


SERIALIZER = Serializer()

FITTING: list[tuple[Any, Any, Any]] = [
    (1, int, 1),
    ("a", str, "a"),
    (lazystr("a"), str, "a"),
    (Path("/a/b"), str, "/a/b"),
    (True, bool, True),
    (1, float, 1),
    (1.5, float, 1.5),
    (datetime.timedelta(minutes=1), float, 60.0),
    (datetime.timedelta(seconds=2), float | None, 2.0),
    (None, int | None, None),
    (None, type(None), None),
    (3, str | int, 3),
    (1, Annotated[int, "whatever"], 1),
    ("a", Literal["a", "b"], "a"),
    (["a"], Sequence[str], ["a"]),
    (("a", 1), tuple[str, int], ("a", 1)),
    ((1, 2, 3), tuple[int, ...], (1, 2, 3)),
    ({1}, set[int], {1}),
    ({"a": 1}, dict[str, int], {"a": 1}),
    ({"a": 1}, Mapping[str, int], {"a": 1}),
    (len, Callable[[Any], Any], len),
    (len, Callable, len),
    (SERIALIZER, Callable[[Any], Any] | None, SERIALIZER),
    ("builtins.len", Callable[[Any], Any], len),
    (bool, type[int], bool),
    ("builtins.bool", type[int], bool),
    (int, type[Any], int),
    (dict, type[dict[str, int]], dict),
    (SERIALIZER, Serializer, SERIALIZER),
    (SERIALIZER, Any, SERIALIZER),
    (SERIALIZER, Shape, SERIALIZER),
    (SERIALIZER, "unresolved", SERIALIZER),
    ({"name": "a", "size": 1}, Options, {"name": "a", "size": 1}),
]


@pytest.mark.parametrize(("value", "hint", "result"), FITTING)
def test_fitting_value(value: Any, hint: Any, result: Any) -> None:
    """What fits is returned as the annotation wants it."""
    assert read(value, hint, "X") == result
    assert type(read(value, hint, "X")) is type(result)


WRONG: list[tuple[Any, Any, str]] = [
    ("1", int, "expected int, not '1' (str)"),
    (True, int, "expected int, not True (bool)"),
    (1.5, int, "expected int"),
    (datetime.timedelta(1), int, "expected int"),
    (True, float, "expected float (a number; a time in seconds or as a timedelta)"),
    (1, str, "expected str, not 1 (int)"),
    (b"a", str, "expected str"),
    (1, bool, "expected bool"),
    ("a", int | None, "expected int or None, not 'a' (str)"),
    (0, type(None), "expected None"),
    ("c", Literal["a", "b"], "expected 'a' or 'b'"),
    ("abc", Sequence[str], "expected Sequence[str]"),
    ([1], Sequence[str], "expected Sequence[str]"),
    (("a",), tuple[str, int], "expected tuple[str, int]"),
    ([("a", 1)], dict[str, int], "expected dict[str, int]"),
    ({"a": "b"}, dict[str, int], "expected dict[str, int]"),
    (7, Callable[[Any], Any], "expected a callable, or its dotted path"),
    (str, type[int], "expected a subclass of int, or its dotted path"),
    (7, type[int], "expected a subclass of int"),
    ([], Options, "expected dict"),
    (7, Serializer, "expected Serializer"),
    (7, Annotated[str, "whatever"], "expected str"),
]


@pytest.mark.parametrize(("value", "hint", "text"), WRONG)
def test_wrong_value(value: Any, hint: Any, text: str) -> None:
    """What does not fit is refused: the setting, the type, and what was given."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read(value, hint, "X['port']")
    assert str(caught.value).startswith(f"X['port']: {text}")


def test_wrong_path() -> None:
    """A dotted path that leads nowhere is an error of its setting."""
    with pytest.raises(ImproperlyConfigured, match=r"^X: cannot import 'a\.b'"):
        read("a.b", Callable[..., Any], "X")


def test_unknown_nested_key() -> None:
    """A nested mapping knows its keys."""
    with pytest.raises(ImproperlyConfigured, match=r"X\['nam'\]: .* mean 'name'\?"):
        read({"nam": "a"}, Options, "X")


def test_missing_nested_key() -> None:
    """A nested mapping has keys that must be there."""
    with pytest.raises(ImproperlyConfigured, match=r"X\['name'\]: missing"):
        read({"size": 1}, Options, "X")


def test_wrong_nested_value() -> None:
    """The path leads to the nested value."""
    with pytest.raises(ImproperlyConfigured, match=r"X\['size'\]: expected int"):
        read({"name": "a", "size": "b"}, Options | None, "X")


def test_secret_is_hidden() -> None:
    """A wrong value of a secret is not told."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"name": "a", "password": 4711}, Options, "X")
    assert "4711" not in str(caught.value)
    assert "X['password']: expected str" in str(caught.value)


# --- single values ----------------------------------------------------------------


def test_imported() -> None:
    """A text is a dotted path, anything else is taken as it is."""
    assert imported("builtins.len", "X") is imported(len, "X") is len


def test_import_error_has_no_secret() -> None:
    """An address in the place of a dotted path keeps its password."""
    with pytest.raises(ImproperlyConfigured) as caught:
        imported("tcp://me:s3cret@host.example", "X")
    assert "s3cret" not in str(caught.value)


def test_items() -> None:
    """Any list will do."""
    assert items(["a"], "X") == items(("a",), "X") == items(iter("a"), "X") == ("a",)


@pytest.mark.parametrize("given", ["orders", 7, None])
def test_items_of_no_list(given: Any) -> None:
    """A lone text is no list of letters."""
    with pytest.raises(ImproperlyConfigured, match=r"^X: .* is not a list\."):
        items(given, "X")


def test_number() -> None:
    """A time is a number or a timedelta; zero only where it may be."""
    assert number(2, "X") == number(datetime.timedelta(seconds=2), "X") == 2.0
    assert number(0, "X", zero=True) == 0.0


@pytest.mark.parametrize("given", [0, "5"])
def test_wrong_number(given: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ImproperlyConfigured, match=r"^X: .* seconds over 0\."):
        number(given, "X")


def test_whole() -> None:
    """A count is a whole number."""
    assert whole(3, "X") == 3


@pytest.mark.parametrize("given", [0, 1.0, True, "3"])
def test_wrong_whole(given: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ImproperlyConfigured, match=r"^X: .* whole number over 0\."):
        whole(given, "X")


# --- keys -------------------------------------------------------------------------


def test_known_keys() -> None:
    """Known keys pass."""
    check_keys({"A": 1}, ["A", "B"], "X")


def test_unknown_key() -> None:
    """An unknown key is named, with the one that may have been meant."""
    with pytest.raises(ImproperlyConfigured, match=r"^X\['TIMOUT'\]: .*'TIMEOUT'\?"):
        check_keys({"TIMOUT": 1}, ["TIMEOUT"], "X")


def test_no_dict() -> None:
    """What should be a dict and is not, is shown without its secrets."""
    with pytest.raises(ImproperlyConfigured, match=r"^X: .*\*@h' is not a dict\."):
        check_keys("tcp://me:s3cret@h", ["A"], "X")


def test_lazy_dict() -> None:
    """A lazy mapping is a mapping."""
    check_keys(SimpleLazyObject(lambda: {"A": 1}), ["A"], "X")


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (["port", "host"], "X: unknown; did you mean 'port'?"),
        (["url", "host"], "X: unknown; there is host, url."),
        ([], "X: unknown; there is nothing to name."),
    ],
)
def test_unknown(known: list[str], text: str) -> None:
    """Where nothing is alike, everything known is named."""
    assert unknown("X", "prot", known) == text
