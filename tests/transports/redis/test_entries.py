"""Entries of streams, without a server: what is written is what is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.exceptions import InvalidMessage, MessageTooLarge
from django_microservices.transports.redis.entries import (
    milliseconds_of,
    read_fields,
    write_fields,
)
from django_microservices.transports.redis.reply_names import (
    is_reply_name,
    new_reply_name,
)
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern

PATTERN = Pattern.of("orders")
CHANNEL = b"dm-reply.0123456789abcdef0123"
MOST = 10_000

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
HEADERS = st.none() | st.dictionaries(st.text(), st.text(), max_size=3)


def read(*fields: bytes) -> Message:
    """Read the fields of an entry."""
    return read_fields(PATTERN, fields, MOST)[0]


@given(JSON | st.just(UNSET), HEADERS)
def test_event(data: Any, headers: dict[str, str] | None) -> None:
    """An event is read as it was written, and is never empty."""
    text = data if data is UNSET else json.dumps(data).encode()
    fields = write_fields(Message(PATTERN, text, headers=headers), CHANNEL, 10**6)
    assert fields
    message, reply = read_fields(PATTERN, fields, 10**6)
    assert (message.data, message.id, reply) == (text, UNSET, None)
    assert (message.headers or {}) == (headers or {})


@given(st.text() | st.integers(), st.none() | st.floats(0.001, 99_999))
def test_request(id_: Any, timeout: float | None) -> None:
    """A request carries its id, where it is answered, and the time that is left."""
    message = Message(PATTERN, b"1", id_, timeout=timeout)
    found, reply = read_fields(PATTERN, write_fields(message, CHANNEL, MOST), MOST)
    assert (found.data, found.id, reply) == (b"1", id_, CHANNEL)
    assert found.timeout == pytest.approx(timeout, abs=0.001)


def test_strangers_event() -> None:
    """What a stranger has added is an event: its fields as texts."""
    message = read(b"user", b"7", b"total", b"\xff")
    assert json.loads(message.data) == {"user": "7", "total": "\ufffd"}
    assert message.is_event


@pytest.mark.parametrize(
    "fields",
    [
        (b"data", b"1", b"headers", b"[]"),
        (b"data", b"1", b"headers", b"{"),
        (b"data", b"1", b"id", b"nonsense"),
        (b"data", b"1", b"id", b"[" * 100 + b"]" * 100),
        (b"data", b"1", b"id", b"{}"),
        (b"data", b"1", b"id", b'"%b"' % (b"x" * 5000)),
        (b"data", b"[" * 200 + b"]" * 200),
    ],
)
def test_unreadable(fields: tuple[bytes, ...]) -> None:
    """What cannot be read is an error that says why."""
    with pytest.raises(InvalidMessage):
        read(*fields)


def test_headers_that_are_no_texts() -> None:
    """Of the headers the texts count."""
    assert read(b"headers", b'{"a":"b","c":1}').headers == {"a": "b"}


@pytest.mark.parametrize("name", ["data", "headers", "other"])
def test_too_large(name: str) -> None:
    """An entry over ``max_frame_size`` is not read, whatever is large in it."""
    with pytest.raises(MessageTooLarge):
        read(name.encode(), b'"%b"' % (b"x" * MOST))


@pytest.mark.parametrize(
    ("data", "headers"), [(b'"%b"' % (b"x" * MOST), None), (b"1", {"x": "y" * MOST})]
)
def test_too_large_to_write(data: bytes, headers: dict[str, str] | None) -> None:
    """Nor is it written."""
    with pytest.raises(MessageTooLarge):
        write_fields(Message(PATTERN, data, headers=headers), CHANNEL, MOST)


def test_time_of_an_entry() -> None:
    """The id of an entry says when Redis took it."""
    assert milliseconds_of(b"1700000000123-7") == 1_700_000_000_123


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_channels_of_answers(prefix: str) -> None:
    """Ours are recognised, and no two are alike."""
    name = new_reply_name(prefix)
    assert name != new_reply_name(prefix)
    assert is_reply_name(name, prefix)


@pytest.mark.parametrize(
    "name",
    [b"", b"orders", CHANNEL + b"x", b"x" + CHANNEL, CHANNEL[:-1], CHANNEL.upper()],
)
def test_peers_do_not_choose_where_we_publish(name: bytes) -> None:
    """Nothing else is a channel of answers."""
    assert not is_reply_name(name, "")
    assert not is_reply_name(CHANNEL, "shop:")
