"""Patterns: made in code, read from the wire, and kept within bounds."""

import copy
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.wire import patterns
from django_microservices.wire.patterns import (
    Pattern,
    is_reserved,
    route,
    unreachable_reason,
)

CACHES: list[dict[Any, Any]] = [
    patterns._texts,
    patterns._containers,
    patterns._arrived,
    patterns._channels,
]
TOO_DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def _empty_caches() -> Iterator[None]:
    """Give each test caches of its own."""
    for cache in CACHES:
        cache.clear()
    yield
    for cache in CACHES:
        cache.clear()


# --- in code ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sum", (b'"sum"', "sum", b'"sum"')),
        ('say "hi"', (b'"say \\"hi\\""', 'say "hi"', b'"say \\"hi\\""')),
        (1.0, (b"1", "1", b'"1"')),
        (1e21, (b"1e21", "1e+21", b'"1e+21"')),
        (
            {"b": 1, "a": "x"},
            (b'{"b":1,"a":"x"}', '{"a":"x","b":1}', b'"{\\"a\\":\\"x\\",\\"b\\":1}"'),
        ),
        ((1, 2), (b"[1,2]", '{"0":1,"1":2}', b'"{\\"0\\":1,\\"1\\":2}"')),
        (["\ud800"], (b'["\\ud800"]', '{"0":"\ud800"}', b'"{\\"0\\":\\"\\ud800\\"}"')),
    ],
)
def test_a_pattern_carries_its_json_and_its_route(
    value: Any, expected: tuple[bytes, str, bytes]
) -> None:
    """The JSON keeps the order as given; the route is canonical, as text and JSON."""
    pattern = Pattern.of(value)

    assert expected == (pattern.json, pattern.route, pattern.route_json)


def test_str_is_the_route() -> None:
    """A pattern reads as its route."""
    assert str(Pattern.of({"b": 2, "a": 1})) == '{"a":1,"b":2}'


def test_repr_shows_the_pattern_as_given() -> None:
    """The representation keeps the order of the keys."""
    assert repr(Pattern.of({"b": 2, "a": 1})) == 'Pattern({"b":2,"a":1})'


def test_value_is_a_fresh_copy() -> None:
    """Changing what ``value`` returned changes no pattern."""
    pattern = Pattern.of({"cmd": ["sum"]})

    pattern.value["cmd"].append("x")

    assert pattern.value == {"cmd": ["sum"]}


def test_equal_routes_are_equal_patterns() -> None:
    """Order of keys and kind of number do not tell patterns apart; hashes agree."""
    same = {Pattern.of({"a": 1, "b": 2}), Pattern.of({"b": 2.0, "a": 1})}

    assert len(same) == 1


def test_a_pattern_is_no_text() -> None:
    """A pattern equals patterns only."""
    assert Pattern.of("sum") != "sum"


def test_a_pattern_cannot_be_changed() -> None:
    """Patterns are shared, so their attributes are read-only."""
    with pytest.raises(AttributeError):
        Pattern.of("sum").route = "other"  # type: ignore[misc]


def test_a_pattern_can_be_copied_and_pickled() -> None:
    """Patterns cross process boundaries."""
    pattern = Pattern.of({"cmd": "sum"})

    assert pattern == copy.deepcopy(pattern) == pickle.loads(pickle.dumps(pattern))


@pytest.mark.parametrize("value", ["sum", {"cmd": "sum"}, [1, 2]])
def test_a_repeated_pattern_is_made_once(value: Any) -> None:
    """The second use of a text, dict or list gives the same object."""
    assert Pattern.of(value) is Pattern.of(copy.copy(value))


def test_a_pattern_is_itself() -> None:
    """A pattern may be given where a value may."""
    pattern = Pattern.of("sum")

    assert Pattern.of(pattern) is pattern


@pytest.mark.parametrize("value", [None, True, b"sum", object(), {"a": b"x"}, {1.5: 1}])
def test_a_type_that_no_pattern_has_is_refused(value: Any) -> None:
    """The error says what may be used."""
    with pytest.raises(TypeError, match=r"use (a )?text"):
        Pattern.of(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], 10**400])
def test_a_number_that_cannot_be_written_is_refused(value: Any) -> None:
    """NaN and what overflows a double are no patterns."""
    with pytest.raises(ValueError, match="range of a double"):
        Pattern.of(value)


@pytest.mark.parametrize(
    ("first", "second"), [([None], [float("nan")]), (["eA=="], [b"x"])]
)
def test_a_kept_pattern_does_not_stand_for_an_unusable_one(
    first: Any, second: Any
) -> None:
    """What only looks the same once encoded is refused whatever came before."""
    Pattern.of(first)

    with pytest.raises((TypeError, ValueError)):
        Pattern.of(second)


def test_a_pattern_that_contains_itself_is_refused() -> None:
    """A cycle is an error that says so."""
    value: list[Any] = []
    value.append(value)

    with pytest.raises(ValueError, match="contains itself"):
        Pattern.of(value)


def test_the_caches_do_not_grow_beyond_their_size() -> None:
    """After any number of patterns each cache holds at most its bound."""
    for number in range(patterns._CACHE_SIZE + 5):
        Pattern.of(f"x{number}")
        Pattern.of([number])
        Pattern.from_json(b'"x%d"' % number)
        Pattern.from_channel(f"x{number}")

    assert [len(cache) for cache in CACHES] == [5] * 4


LONG = b'"%s"' % (b"x" * 600)
LONG_ROUTE = b"[%s]" % b",".join([b"[%s0]" % (b"0," * 19)] * 10)


@pytest.mark.parametrize("raw", [LONG, LONG_ROUTE])
def test_long_patterns_are_not_kept(raw: bytes) -> None:
    """A long text is made anew each time, and so is one with a long route."""
    assert Pattern.from_json(raw) == Pattern.from_json(raw)
    assert not patterns._arrived


# --- from the wire ----------------------------------------------------------------

# (the JSON text of the member, what Nest 12.1.1 looked up)
NODE = [
    ('"user_created"', "user_created"),
    ('{"b":1, "a":2}', '{"a":2,"b":1}'),
    (r'"{\"b\":1,\"a\":2}"', '{"a":2,"b":1}'),
    (r'"\"x\""', "x"),
    (r'"\"{\\\"a\\\":1}\""', '{"a":1}'),
    ('"1.0"', "1"),
    ('"1e3"', "1000"),
    ("1.0", "1"),
    ("-0", "0"),
    ('"-0.0"', "0"),
    ('"007"', "007"),
    ('"NaN"', "NaN"),
    ('"[NaN]"', "[NaN]"),
    ('"Infinity"', "Infinity"),
    ('"1e999"', "Infinity"),
    ("1e999", "null"),
    ('{"a":1e999}', '{"a":null}'),
    ('[1.5,"\\ud800"]', '{"0":1.5,"1":"\ud800"}'),
    (r'"{\"a\":-1e999}"', '{"a":-Infinity}'),
    ("9" * 400, "null"),
    ('"' + "9" * 400 + '"', "Infinity"),
    (" " * 400 + "12", "12"),
    ('"123456789012345678901"', "123456789012345680000"),
    ("123456789012345678901", "123456789012345680000"),
    ("null", "null"),
    ('"null"', "null"),
    ("true", "true"),
    ('" 1 "', "1"),
    ('"\ufeff1"', "\ufeff1"),
    ('"nulls"', "nulls"),
    ('""', ""),
    (r'"\ud800"', "\ud800"),
    (r'{"a":"\ud800"}', '{"a":"\ud800"}'),
    ("[]", "{}"),
    ('{"a":1,"a":2}', '{"a":2}'),
    ("[" * 300 + "]" * 300, '{"0":' * 6 + "[MAX_DEPTH_REACHED]" + "}" * 6),
]


@pytest.mark.parametrize(("raw", "expected"), NODE)
def test_what_arrives_is_looked_up_as_in_nest(raw: str, expected: str) -> None:
    """Each JSON text has the route that Nest's server looked up."""
    assert expected == Pattern.from_json(raw.encode()).route


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "undefined"),
        (b"{", "{"),
        (b'"\xff"', '"\ufffd"'),
        (b"NaN", "NaN"),
        (TOO_DEEP.encode(), TOO_DEEP),
    ],
)
def test_what_cannot_be_read_is_taken_as_text(raw: bytes, expected: str) -> None:
    """Nothing that arrives raises; no pattern at all is JavaScript's undefined."""
    assert expected == Pattern.from_json(raw).route


def test_a_missing_pattern_has_no_value() -> None:
    """A message without a pattern has empty JSON and the value None."""
    pattern = Pattern.from_json(b"")

    assert (pattern.json, pattern.value) == (b"", None)


def test_arrived_json_is_kept_compact_and_in_order() -> None:
    """The JSON of what arrived has no spaces, and its keys stay where they were."""
    assert Pattern.from_json(b'{ "b": 1, "a": "2" }').json == b'{"b":1,"a":"2"}'


def test_a_text_that_is_json_keeps_its_value() -> None:
    """Only the route is read again: the value is the text that the peer sent."""
    pattern = Pattern.from_json(b'"1.0"')

    assert (pattern.value, pattern.route, pattern.route_json) == ("1.0", "1", b'"1"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user.created", "user.created"),
        ('{"b":1,"a":2}', '{"a":2,"b":1}'),
        ("1.0", "1"),
        ("true.x", "true.x"),
        ("", ""),
        ("\ud800", "\ud800"),
        (TOO_DEEP, TOO_DEEP),
    ],
)
def test_a_channel_is_looked_up_by_its_text(text: str, expected: str) -> None:
    """The name of a channel is read as JSON where it is JSON, else as it stands."""
    pattern = Pattern.from_channel(text)

    assert (text, expected) == (json.loads(pattern.json), pattern.route)


@pytest.mark.parametrize("raw", [b'"sum"', b'{"cmd":"sum"}'])
def test_what_arrives_twice_is_read_once(raw: bytes) -> None:
    """The second message of a pattern finds the pattern of the first."""
    assert Pattern.from_json(raw) is Pattern.from_json(bytes(bytearray(raw)))


def test_a_channel_is_read_once() -> None:
    """The second message of a channel finds the pattern of the first."""
    assert Pattern.from_channel("a.b") is Pattern.from_channel("a.b")


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_bytes_raise(raw: bytes) -> None:
    """Whatever a peer sends, there is a pattern with a route and readable JSON."""
    pattern = Pattern.from_json(raw)

    assert isinstance(pattern.route, str)
    assert pattern.route == json.loads(pattern.route_json)


plain_objects = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=5),
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    max_size=6,
)


@given(plain_objects)
def test_an_object_finds_its_handler(value: dict[str, Any]) -> None:
    """Sent as an object, as its route in a text, or as a channel: one route."""
    sent = Pattern.of(value)

    assert sent.route == route(value)
    assert sent == Pattern.from_json(sent.json)


@given(plain_objects.filter(lambda value: "\\" not in repr(value)))
def test_a_route_is_looked_up_as_itself(value: dict[str, Any]) -> None:
    """The route of an object is a fixed point, as a text and as a channel."""
    sent = Pattern.of(value)

    assert sent == Pattern.from_json(sent.route_json) == Pattern.from_channel(str(sent))


# --- registration -----------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["sum", "007", "NaN", "", "1", "0.5", "{}", '{"a":1}', '{"a":{"0":1}}', "true.x"],
)
def test_a_text_that_is_looked_up_as_itself_is_reachable(value: str) -> None:
    """What is not JSON, or is canonical, has no reason against it."""
    assert unreachable_reason(value) is None


@pytest.mark.parametrize(
    ("value", "looked_up"),
    [
        ("1.0", "looked up as '1'"),
        ("1e3", "looked up as '1000'"),
        ('{"b":1,"a":2}', 'looked up as \'{"a":2,"b":1}\''),
        ("[1]", "looked up as '{\"0\":1}'"),
        ('"x"', "looked up as 'x'"),
        (" 1", "looked up as '1'"),
        ("123456789012345678901", "looked up as '123456789012345680000'"),
        ("true", "the JSON value true"),
        ("null", "the JSON value null"),
    ],
)
def test_a_text_that_nothing_reaches_has_a_reason(value: str, looked_up: str) -> None:
    """The reason names the text and what it is looked up as."""
    reason = unreachable_reason(value)

    assert reason is not None
    assert repr(value) in reason
    assert looked_up in reason


@pytest.mark.parametrize(
    ("name", "expected"), [("dm-ping", True), ("dm", False), ("a.dm-ping", False)]
)
def test_our_own_patterns_are_reserved(name: str, *, expected: bool) -> None:
    """What begins with ``dm-`` is no pattern for handlers and callers."""
    assert expected is is_reserved(name)
