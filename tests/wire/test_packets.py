"""Nest's packets: requests, events and replies."""

import json
from typing import Any

import pytest

from django_microservices.exceptions import InvalidMessage
from django_microservices.wire.codecs import dump
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.packets import (
    NO_HANDLER,
    envelope_of,
    find_id,
    read_envelope,
    read_reply,
    reply_of_packet,
    texts_of,
    write_message,
    write_reply,
)

HALF = "\ud83d"  # of a surrogate pair, as JavaScript may write it


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
    assert find_id(b'{"pattern":"p","data":' + b"[" * 1000 + b"]" * 1000 + end) == id_


@pytest.mark.parametrize(
    ("beginning", "id_"),
    [
        (b'{"id":"a1",', "a1"),
        (b' { "id" : -7 , ', -7),
        (b'{"x":{"id":"a1",', UNSET),
        (b'{"id":"a1\\', UNSET),
        (b'[{"id":"a1",', UNSET),
    ],
)
def test_finds_an_id_in_front(beginning: bytes, id_: Any) -> None:
    """So is one that stands in front of everything."""
    assert find_id(beginning + b'"response":' + b"[" * 1000) == id_
