"""JSON payloads: strict in, strict out, one result for everything."""

import datetime
import json
import types
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.exceptions import EncodingError, InvalidMessage
from django_microservices.wire.codecs import (
    MAX_DEPTH,
    builtins_of,
    decode,
    dump,
    encode,
    is_too_deep,
)

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=2))
HALF = "\ud83d"  # of a surrogate pair, as JavaScript may write it

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@dataclass
class Point:
    """A typed kind."""

    x: float
    when: datetime.timedelta


class Odd:
    """Nothing that JSON knows."""


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Nest lists, or whatever the brackets make."""
    return opening * depth + closing * depth


# --- depth ---


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH),
        nested(MAX_DEPTH // 2, b'{"a":[', b"]}"),
        b"[" + b"[]," * 200 + b"[]]",
        b'["' + b"[" * 200 + b'"]',
        b'["\\"' + b"[" * 200 + b'"]',
        b'["","[", "" ,"' + b"{" * 200 + b'"]',
        b"",
    ],
)
def test_shallow(text: bytes) -> None:
    """Up to 64 levels pass, however many brackets there are; strings do not count."""
    assert not is_too_deep(text)


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH + 1),
        nested(MAX_DEPTH // 2 + 1, b'{"a":[', b"]}"),
        nested(MAX_DEPTH + 1, b'{"":', b"}"),
        nested(MAX_DEPTH + 1, b'["[",', b"]"),
        nested(100_000),
        b"[%b]" % b",".join([nested(MAX_DEPTH)] * 100),
        b"[" * 1000,
    ],
)
def test_too_deep(text: bytes) -> None:
    """More levels do not, of lists, objects or both, nor what is never closed."""
    assert is_too_deep(text)


@given(st.integers(1, 2 * MAX_DEPTH), st.data())
def test_depth_is_exact(depth: int, data: st.DataObject) -> None:
    """The depth is counted as a reader would."""
    value: Any = data.draw(st.text('[]{}"\\'))
    for _ in range(depth):
        value = [value, "]"] if data.draw(st.booleans()) else {"[": [], "k": value}
    # An object above adds a level of its own beside the value: an empty list.
    assert is_too_deep(encode(value)) is (depth_of(value) > MAX_DEPTH)


def depth_of(value: Any) -> int:
    """Count by walking."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


# --- encoding ---


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, True, None, "é😀"]},
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=EAST),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC),
        datetime.datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - as a user may
        datetime.datetime(2026, 1, 2, 3, 4, 5, 1),  # noqa: DTZ001
        datetime.date(2026, 1, 2),
        [datetime.timedelta(days=-1, microseconds=5), datetime.date(2026, 1, 2)],
        datetime.time(3, 4, 5),
        datetime.time(3, 4, 5, 678901),
        datetime.timedelta(0),
        datetime.timedelta(days=-2, seconds=3, microseconds=4),
        Decimal("1.50"),
        uuid.UUID(int=7),
        gettext_lazy("Yes"),
        {"text": "P1D", "price": 1.25, "n": 3, "no": None},
        "03:04:05.67890",
    ],
)
def test_encodes_as_django(value: Any) -> None:
    """Scalars are written as ``DjangoJSONEncoder`` writes them."""
    expected = json.loads(json.dumps(value, cls=DjangoJSONEncoder))
    assert json.loads(encode(value)) == expected
    assert json.loads(dump(builtins_of(value))) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), b"null"),
        ([float("inf"), -float("inf"), 1.5], b"[null,null,1.5]"),
        ([float("nan"), datetime.timedelta(1)], b'[null,"P1DT00H00M00S"]'),
        (Point(1, datetime.timedelta(1)), b'{"x":1,"when":"P1DT00H00M00S"}'),
        (types.MappingProxyType({"a": 1}), b'{"a":1}'),
        (HALF, b'"\\ud83d"'),
        ({HALF: [1.5, Decimal(1)]}, b'{"\\ud83d":[1.5,"1"]}'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_encodes(value: Any, text: bytes) -> None:
    """NaN is never written, and what JavaScript can write goes back to it."""
    assert encode(value) == text


class Meters(float):
    """A number of a type of its own."""


class Number(int):
    """Another."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (mark_safe("<b>"), b'"<b>"'),
        ([Meters(1.5), Number(2)], b"[1.5,2]"),
        ({mark_safe("a"): 1}, b'{"a":1}'),
    ],
)
def test_subclasses_of_builtins(value: Any, text: bytes) -> None:
    """They travel as what they are a kind of: what a template renders is a text."""
    assert encode(value) == text


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (User(username="ada"), "User is a model instance.*response="),
        ([User.objects.all()], "A QuerySet cannot travel.*list"),
        (Odd(), "test_codecs.Odd cannot travel as JSON: send builtins"),
        ({None: 1}, "None cannot be a key of a JSON object: use a text."),
        ({(1, 2): 1}, r"\(1, 2\) cannot be a key of a JSON object"),
        ({HALF: 1, (1, 2): 3}, "key"),
        ([HALF, Odd()], "Odd cannot travel"),
    ],
)
def test_refuses_to_encode(value: Any, says: str) -> None:
    """What cannot travel is an error that says what to do."""
    with pytest.raises(EncodingError, match=says):
        encode(value)


def test_refuses_to_encode_a_circle() -> None:
    """A value that contains itself is an error, and no stack overflow."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(EncodingError, match="contains itself"):
        encode(circle)


# --- decoding ---


@given(VALUES)
def test_round_trip(value: Any) -> None:
    """Every JSON value comes back as it was."""
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a":1,"a":2} ', {"a": 2}),
        (b"18446744073709551616", 2**64),
        (b"-0", 0),
        (b'"\\ud83d"', HALF),
        (b'["\\ud83d", 1.5, 18446744073709551616]', [HALF, 1.5, 2**64]),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"1" * 4300, int("1" * 4300)),
    ],
)
def test_decodes(text: bytes, value: Any) -> None:
    """The last duplicate key wins, integers are exact, half surrogates are kept."""
    assert decode(text) == value
    assert decode(msgspec.Raw(text)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "at character 0"),
        (b"\xef\xbb\xbf1", "at character 0"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "out of range"),
        (b"[-1e999]", "out of range"),
        (b"1" * 5000, "out of range"),
        (b"\xff", "not UTF-8"),
        (b'"\x01"', "at character 1"),
        (b"01", "at character 1"),
        (b"1 2", "at character 2"),
        (nested(100_000), "deeper than 64"),
    ],
)
def test_refuses_to_decode(text: bytes, says: str) -> None:
    """All else is an error, which tells nothing of what reads here."""
    with pytest.raises(InvalidMessage, match=says) as caught:
        decode(text)
    assert "sys." not in str(caught.value)
    assert "codec" not in str(caught.value)
