"""Nest's canonical text: the literals were produced by Nest 12.1.1 on Node 20."""

import enum
import random
from collections import UserDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.wire import routes
from django_microservices.wire.routes import plain, route

DEEPEST = {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}

NODE = [
    ("user_created", "user_created"),
    ("", ""),
    ('{"b":1,"a":2}', '{"b":1,"a":2}'),
    (1, "1"),
    (0, "0"),
    (-7, "-7"),
    (1.0, "1"),
    (-0.0, "0"),
    (0.1, "0.1"),
    (1.5, "1.5"),
    (-2.5, "-2.5"),
    (1e-6, "0.000001"),
    (1.5e-6, "0.0000015"),
    (1e-7, "1e-7"),
    (1.5e-7, "1.5e-7"),
    (5e-324, "5e-324"),
    (1e16, "10000000000000000"),
    (1e20, "100000000000000000000"),
    (1e21, "1e+21"),
    (-1e21, "-1e+21"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (2**53, "9007199254740992"),
    (2**53 + 1, "9007199254740992"),
    (2**63, "9223372036854776000"),
    (123456789012345678901, "123456789012345680000"),
    (-(2**70), "-1.1805916207174113e+21"),
    (10**400, "Infinity"),
    (-(10**400), "-Infinity"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (float("nan"), "NaN"),
    (None, "null"),
    (True, "true"),
    (False, "false"),
    ({}, "{}"),
    ([], "{}"),
    ((), "{}"),
    ({"cmd": "sum"}, '{"cmd":"sum"}'),
    ({"b": 1, "a": {"d": 2, "c": 3}}, '{"a":{"c":3,"d":2},"b":1}'),
    ([1, 2], '{"0":1,"1":2}'),
    (
        [0] * 12,
        '{"0":0,"1":0,"10":0,"11":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0}',
    ),
    ({"a": [{"b": "1"}]}, '{"a":{"0":{"b":"1"}}}'),
    ({"a": None, "b": True, "c": False}, '{"a":null,"b":true,"c":false}'),
    ({"a": 1.0, "b": "1"}, '{"a":1,"b":"1"}'),
    ({"a": 'q"b\\s\nn\u00e9'}, '{"a":"q\\"b\\\\s\nn\u00e9"}'),
    ({'q"\\': 1}, '{"q\\"\\\\":1}'),
    (DEEPEST, '{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}'),
    ({"a": DEEPEST}, '{"a":{"a":{"a":{"a":{"a":{"a":[MAX_DEPTH_REACHED]}}}}}}'),
    ([0] * 21, "[TOO_MANY_KEYS]"),
    ({"a": [0] * 21}, '{"a":[TOO_MANY_KEYS]}'),
]
# Each row as `Array.prototype.sort` with `localeCompare` left it.
NODE_ORDER = [
    ["_", "-", "1", "a", "A", "b", "B", "Z"],
    ["", "a", "A", "aa", "aA", "Aa", "AA", "ab", "b"],
    ["a_b", "a-b", "a.b", "a$b", "a0b", "ab"],
    ["userId", "userid2", "userName", "users"],
    [*"\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$019azZ"],
    ["a\0z", "b\x7f", "b\x1fc"],
    ["cote", "cot\u00e9", "c\u00f4te", "c\u00f4t\u00e9", "cotf"],
    ["ae", "\u00e6", "af", "o", "\u00f6", "\u00d6", "\u00f8", "p", "ss", "\u00df", "z"],
    ["\U0001f600", "$", "\u20ac", "0", "z", "\u03b1", "\u0416"],
]


@pytest.mark.parametrize(("value", "expected"), NODE)
def test_a_route_is_the_text_that_nest_makes(value: Any, expected: str) -> None:
    """Every kind of value has the text that Nest's own function returned."""
    assert expected == route(value)


@pytest.mark.parametrize("expected", NODE_ORDER)
def test_keys_sort_as_localecompare_does(expected: list[str]) -> None:
    """Keys stand in the order that Node put them in, whatever order they came in."""
    shuffled = random.Random(7).sample(expected, len(expected))

    assert expected == sorted(shuffled, key=routes._collation_key)


def test_a_route_names_its_keys_in_that_order() -> None:
    """Objects at every level are sorted."""
    value = {"b": 1, "A": {"_": 1, "Z": 1, "-": 1}, "a": 1}

    assert route(value) == '{"a":1,"A":{"_":1,"-":1,"Z":1},"b":1}'


def test_what_is_no_json_value_has_no_route() -> None:
    """Another type is refused by its name."""
    with pytest.raises(TypeError, match="of type bytes"):
        route({"a": b"x"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=4), inner)
    ),
    max_leaves=12,
)


def visible(value: Any) -> bool:
    """Whether no two keys compare equal (control characters count for nothing)."""
    if isinstance(value, dict):
        keys = ["".join(filter(str.isprintable, key)) for key in value]
        return len(set(keys)) == len(keys) and all(map(visible, value.values()))
    return not isinstance(value, list) or all(map(visible, value))


def shuffle(value: Any, source: random.Random) -> Any:
    """Return ``value`` with the keys of every dict in another order."""
    if isinstance(value, dict):
        keys = source.sample(list(value), len(value))
        return {key: shuffle(value[key], source) for key in keys}
    if isinstance(value, list):
        return [shuffle(item, source) for item in value]
    return value


@given(values.filter(visible), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: Any, source: random.Random) -> None:
    """The same value with its keys in any order has the same route."""
    assert route(value) == route(shuffle(value, source))


class Command(str, enum.Enum):  # noqa: UP042 - unlike StrEnum, its str() is another
    """A text that is more than a text."""

    SUM = "sum"


class Number(enum.Enum):
    """A value that is not itself JSON."""

    ONE = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"cmd": Command.SUM}, {"cmd": "sum"}),
        ({Command.SUM: Number.ONE}, {"sum": 1}),
        ({1: (1, 2)}, {"1": [1, 2]}),
        (UserDict(a=1), {"a": 1}),
        ([True, None, 1.0, 1.5, 1e300], [True, None, 1, 1.5, 1e300]),
        (2**70, float(2**70)),
    ],
)
def test_values_of_code_become_json_values(value: Any, expected: Any) -> None:
    """Tuples, enums, mappings and whole floats are what JavaScript would write."""
    assert repr(expected) == repr(plain(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_that_json_cannot_write_is_refused(value: float) -> None:
    """NaN, infinity and an integer beyond a double are no part of a pattern."""
    with pytest.raises(ValueError, match="beyond the range of a double"):
        plain({"a": value})


@pytest.mark.parametrize("key", [1.5, None, True, b"a"])
def test_a_key_is_a_text_or_an_integer(key: Any) -> None:
    """Other keys are refused by name."""
    with pytest.raises(TypeError, match="cannot be a key"):
        plain({key: 1})


@pytest.mark.parametrize("value", [b"a", {1}, object()])
def test_a_type_that_is_not_json_is_refused(value: Any) -> None:
    """Other values are refused by their type."""
    with pytest.raises(TypeError, match=type(value).__qualname__):
        plain([value])
