"""JSON payloads and packets: strict in, strict out, one result for everything."""

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
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.exceptions import EncodingError, InvalidMessage
from django_microservices.wire.codecs import (
    MAX_DEPTH,
    NO_HANDLER,
    SHALLOW,
    decode,
    dump,
    encode,
    envelope_of,
    find_id,
    is_too_deep,
    plain,
    read_envelope,
    read_reply,
    reply_of_packet,
    texts_of,
    write_message,
    write_reply,
)
from django_microservices.wire.messages import UNSET, Reply

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
        b"[" * 1000,
    ],
)
def test_too_deep(text: bytes) -> None:
    """More levels do not, of lists, objects or both, nor what is never closed."""
    assert is_too_deep(text)


def test_shortest_deep_text() -> None:
    """A text that is too deep has more bytes than what need not be looked at."""
    assert len(nested(MAX_DEPTH + 1)) > SHALLOW


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
    assert json.loads(dump(plain(value))) == expected


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


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (User(username="ada"), "User is a model instance.*response="),
        ([User.objects.all()], "A QuerySet cannot travel.*list"),
        (Odd(), "test_codecs.Odd cannot travel as JSON: send builtins"),
        ({(1, 2): 3}, "tuple"),
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


# --- requests and events ---


def test_reads_a_request() -> None:
    """A request's members are there, its payload still encoded."""
    text = b'{"pattern":{"cmd":"sum"},"data":[1, 2],"id":"7","metadata":{"a":"b"}}'
    envelope = read_envelope(text)
    assert envelope is not None
    assert bytes(envelope.pattern) == b'{"cmd":"sum"}'
    assert bytes(envelope.data) == b"[1, 2]"
    assert (envelope.id, envelope.metadata) == ("7", {"a": "b"})


def test_reads_an_event() -> None:
    """What is absent is falsy, and an absent id is not null."""
    envelope = read_envelope(b'{"pattern":"a"}')
    assert envelope is not None
    assert (bool(envelope.data), envelope.id, envelope.metadata) == (False, UNSET, None)


@pytest.mark.parametrize("id_", [None, 7, "", [1], {"a": 1}, 2**70, HALF])
def test_any_json_is_an_id(id_: Any) -> None:
    """An id keeps its type; null is one."""
    envelope = read_envelope(b'{"pattern":"a","id":' + dump(id_) + b"}")
    assert envelope is not None
    assert envelope.id == id_


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (b'{"a":1,"b":"c"}', {"b": "c"}),
        (b"[]", None),
        (b"null", None),
        (b'"dm-peer"', None),
    ],
)
def test_metadata_of_any_shape(metadata: bytes, kept: dict[str, str] | None) -> None:
    """Metadata that is not all texts loses the rest, and the message stays readable."""
    envelope = read_envelope(
        b'{"pattern":"a","data":{"n":18446744073709551616},"metadata":'
        + metadata
        + b"}"
    )
    assert envelope is not None
    assert bytes(envelope.data) == b'{"n":18446744073709551616}'
    assert envelope.metadata == kept


@pytest.mark.parametrize("text", [b"null", b"5", b'"x"', b"[]", b"true"])
def test_json_that_is_no_message(text: bytes) -> None:
    """JSON that is no object is no message and no reply, but no error either."""
    assert read_envelope(text) is None
    assert read_reply(text) is None


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"pattern":NaN}', b'{"id":1e999}', b'{"id":' + b"1" * 5000 + b"}"],
)
def test_what_is_no_json(text: bytes) -> None:
    """What is no JSON at all is an error."""
    with pytest.raises(InvalidMessage):
        read_envelope(text)
    with pytest.raises(InvalidMessage):
        read_reply(text)


def test_envelope_of_a_packet() -> None:
    """A packet that a deserializer made is read like one from the wire."""
    envelope = envelope_of(
        {"pattern": "a", "data": HALF, "id": 1, "metadata": {"a": 1}}
    )
    assert bytes(envelope.pattern) == b'"a"'
    assert bytes(envelope.data) == b'"\\ud83d"'
    assert (envelope.id, envelope.metadata) == (1, {})
    assert envelope_of({}).id is UNSET
    assert texts_of({"a": "b", "c": None}) == {"a": "b"}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            (b'"p"', b"1", "7", b"{}"),
            b'{"pattern":"p","data":1,"id":"7","metadata":{}}',
        ),
        ((b'"p"', b"1", "7", None), b'{"pattern":"p","data":1,"id":"7"}'),
        ((b'"p"', b"1", UNSET, None), b'{"pattern":"p","data":1}'),
        ((b'"p"', None, UNSET, b"{}"), b'{"pattern":"p","metadata":{}}'),
        ((b'"p"', None, None, None), b'{"pattern":"p","id":null}'),
    ],
)
def test_writes_a_message(parts: tuple[Any, ...], text: bytes) -> None:
    """What is absent has no member; the order is Nest's."""
    assert write_message(*parts) == text


# --- replies ---


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply("a", b"1"), b'{"response":1,"isDisposed":true,"id":"a"}'),
        (Reply("a", b"null"), b'{"response":null,"isDisposed":true,"id":"a"}'),
        (Reply("a", b"1", last=False), b'{"response":1,"id":"a"}'),
        (Reply("a"), b'{"isDisposed":true,"id":"a"}'),
        (Reply("a", last=False), b'{"id":"a"}'),
        (Reply(7, None, b'"x"'), b'{"err":"x","isDisposed":true,"id":7}'),
        (Reply(None, b"1"), b'{"response":1,"isDisposed":true,"id":null}'),
        (Reply([1], b"1"), b'{"response":1,"isDisposed":true,"id":[1]}'),
        (Reply(HALF, b"1"), b'{"response":1,"isDisposed":true,"id":"\\ud83d"}'),
        (
            Reply("a", missing=True),
            b'{"id":"a","status":"error","err":"' + NO_HANDLER.encode() + b'"}',
        ),
    ],
)
def test_writes_a_reply(reply: Reply, text: bytes) -> None:
    """A reply has Nest's keys and no other: undefined has no member, null has one."""
    assert write_reply(reply) == text
    assert json.loads(text).keys() <= {"id", "err", "response", "isDisposed", "status"}


def read(text: bytes) -> tuple[Any, ...]:
    """Read a reply, and take it apart."""
    reply = read_reply(text)
    assert reply is not None
    again = reply_of_packet(json.loads(text))
    parts = (reply.id, raw(reply.data), reply.error, reply.last, reply.missing)
    assert parts == (again.id, raw(again.data), again.error, again.last, again.missing)
    return parts


def raw(data: Any) -> bytes | None:
    """Return the bytes of a part."""
    return None if data is None else bytes(data)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b'{"response":1,"isDisposed":true,"id":"a"}', ("a", b"1", None, True, False)),
        (b'{"response":null,"id":"a"}', ("a", b"null", None, False, False)),
        (b'{"isDisposed":true,"id":"a"}', ("a", None, None, True, False)),
        (b'{"id":"a"}', ("a", None, None, False, False)),
        (b'{"id":"a","isDisposed":[]}', ("a", None, None, True, False)),
        (b'{"id":"a","isDisposed":1}', ("a", None, None, True, False)),
        (b'{"id":"a","isDisposed":""}', ("a", None, None, False, False)),
        (b'{"id":"a","isDisposed":null}', ("a", None, None, False, False)),
        (b'{"id":"a","err":{},"isDisposed":true}', ("a", None, b"{}", True, False)),
        (b'{"id":"a","err":[]}', ("a", None, b"[]", True, False)),
        (b'{"id":"a","err":"0"}', ("a", None, b'"0"', True, False)),
        (b'{"id":"a","err":0.5}', ("a", None, b"0.5", True, False)),
        (b'{"id":"a","err":"x","response":1}', ("a", None, b'"x"', True, False)),
        (
            b'{"id":"a","status":"error","err":"' + NO_HANDLER.encode() + b'"}',
            ("a", None, b'"' + NO_HANDLER.encode() + b'"', True, True),
        ),
        (
            b'{"id":"a","status":"error","err":"x"}',
            ("a", None, b'"x"', True, False),
        ),
    ],
)
def test_reads_a_reply(text: bytes, parts: tuple[Any, ...]) -> None:
    """A reply is read with JavaScript's truth."""
    assert read(text) == parts


@pytest.mark.parametrize("zero", [b"null", b'""', b"0", b"-0", b"0.0", b"false"])
def test_what_is_no_error(zero: bytes) -> None:
    """What JavaScript calls false is no error."""
    text = b'{"id":"a","err":' + zero + b',"response":1,"isDisposed":true}'
    assert read(text) == ("a", b"1", None, True, False)


@pytest.mark.parametrize("zero", [b"0.00", b"0e5", b"-0.0E-7"])
def test_zero_in_other_words(zero: bytes) -> None:
    """Zero is no error, however it is written."""
    reply = read_reply(b'{"id":"a","err":' + zero + b',"isDisposed":true}')
    assert reply is not None
    assert reply.error is None


def test_reads_a_reply_with_a_foreign_key() -> None:
    """A key that we do not know does no harm, nor does half a surrogate in the id."""
    assert read(b'{"id":"a","trace":1,"response":2}')[1] == b"2"
    reply = read_reply(b'{"id":"\\ud83d","response":2,"err":null}')
    assert reply is not None
    assert (reply.id, raw(reply.data)) == (HALF, b"2")


# --- an id in what cannot be read ---


@pytest.mark.parametrize(
    ("end", "id_"),
    [
        (b',"id":"a1"}', "a1"),
        (b', "id" : -7 , "metadata": {"a":"b"} } ', -7),
        (b',"id":"a1"}}', UNSET),
        (b',"id":007}', UNSET),
        (b',"id":"a\nb"}', UNSET),
        (b"}", UNSET),
        (b',"id":"' + b"x" * 200 + b'"}', UNSET),
    ],
)
def test_finds_an_id(end: bytes, id_: Any) -> None:
    """The id behind an unreadable payload is found where it surely is one."""
    assert find_id(b'{"pattern":"p","data":' + nested(1000) + end) == id_
