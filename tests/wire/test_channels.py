"""What arrives on a channel: packets, foreign bodies, texts and replies."""

from typing import Any

import pytest

from django_microservices.wire.channels import read_channel_message
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET, Message, Reply

DEEP = b"[" * 200 + b"]" * 200


def read(body: bytes, channel: str = "sum", **options: Any) -> Any:
    """Read what came."""
    return read_channel_message(channel, body, **options)


def test_request() -> None:
    """The channel, and not the packet, says what the message is about."""
    message = read(
        b'{"pattern":"other","data":[1],"id":"7","metadata":{"a":"b","dm-timeout":"50"}}'
    )
    assert message.pattern.route == "sum"
    assert (decode(message.data), message.id, message.timeout) == ([1], "7", 0.05)
    assert message.headers["a"] == "b"


def test_event_without_payload() -> None:
    """A packet with a pattern alone is an event without a payload."""
    message = read(b'{"pattern":"other"}')
    assert message.is_event
    assert message.data is UNSET


def test_object_pattern() -> None:
    """The name of a channel may be an object pattern in canonical form."""
    message = read(b'{"pattern":"x","data":1}', '{"b":1,"a":2}')
    assert message.pattern.route == '{"a":2,"b":1}'


@pytest.mark.parametrize("body", [b'{"id":5,"n":1}', b"[1]", b"null", b"5", b'"x"'])
def test_foreign_body(body: bytes) -> None:
    """A body that is no packet is an event, whatever it holds."""
    message = read(body)
    assert message.is_event
    assert message.data == body


def test_text() -> None:
    """Where Nest takes what is no JSON as a text, so do we; elsewhere it is dropped."""
    assert decode(read(b"caf\xc3\xa9 \xff", takes_text=True).data) == "café \ufffd"
    assert read(b"hello") is None
    assert read(b"", takes_text=True) is None


@pytest.mark.parametrize(
    "body",
    [b'{"response":1,"isDisposed":true,"id":"7"}', b'{"err":"x","id":1}'],
)
def test_reply_that_a_wildcard_brings(body: bytes) -> None:
    """A reply is no message where replies travel, and one anywhere else."""
    assert read(body, "sum.reply", reply_suffix=".reply") is None
    assert read(body, "sum", reply_suffix=".reply").is_event
    assert read(body, "sum.reply").is_event


@pytest.mark.parametrize("body", [b'{"id":1,"status":"open"}', b'{"n":1}', b"[]"])
def test_event_on_a_reply_channel(body: bytes) -> None:
    """What only looks like a reply is an event there, too."""
    assert read(body, "sum.reply", reply_suffix=".reply").is_event


def test_deep_request_is_answered() -> None:
    """A request that nests too deeply is refused with its id."""
    reply = read(b'{"pattern":"x","data":%b,"id":"7"}' % DEEP)
    assert isinstance(reply, Reply)
    assert reply.id == "7"
    assert reply.error is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"pattern":"x","data":%b}' % DEEP,
        b'{"pattern":"x","data":%b,"id":{"a":1}}' % DEEP,
        DEEP,
    ],
)
def test_deep_body_that_nobody_can_be_told_of(body: bytes) -> None:
    """What nests too deeply is dropped where it cannot be answered."""
    assert read(body) is None
    assert read(body, takes_text=True) is None


def test_body_that_is_too_deep_for_the_decoder() -> None:
    """Nor is it taken for a text."""
    assert read(b"[" * 100_000 + b"]" * 100_000, takes_text=True) is None


def test_message_is_one() -> None:
    """What is read is a Message."""
    assert isinstance(read(b'{"pattern":"x","data":1}'), Message)
