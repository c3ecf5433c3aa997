"""AMQP's frames, without sockets: as pamqp reads and writes them, and cut at will."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import base, body, commands, frame, header

from django_microservices.transports.rabbitmq import frames
from django_microservices.transports.rabbitmq.protocol import (
    DELIVER,
    FRAME_ERROR,
    RETURN,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    Content,
    Parser,
    Settled,
    read_method,
)
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ

from .rabbitmq_peer import Peer

LIMIT = 1000
CHANNEL = 3
EXCHANGES = st.text("abc.#-_", max_size=20)
KEYS = st.text("abc.*#-_é", max_size=20)
BODIES = st.binary(max_size=LIMIT)
CUTS = st.lists(st.integers(0, 10**6), max_size=20)
TAGS = st.integers(1, 2**63 - 1)
COUNTS = st.integers(0, 2**32 - 1)


def plain(item: tuple[int, Any]) -> Any:
    """Make an item comparable: pamqp's methods are not."""
    channel, value = item
    if isinstance(value, base.Frame):
        return channel, value.name, dict(value)
    return item


def receive(chunks: Sequence[bytes]) -> tuple[list[Any], tuple[int, str] | None]:
    """Let a parser read."""
    parser = Parser(LIMIT)
    items: list[Any] = []
    for chunk in chunks:
        if parser.error is None:
            items += parser.receive(chunk)
    return [plain(item) for item in items], parser.error


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut a stream into the chunks that a socket might give."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    bounds = [0, *places, len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds) if start < end]


def message(method: base.Frame, data: bytes, size: int = 4096) -> bytes:
    """Write a message as pamqp does, its body in frames of a size."""
    parts: list[Any] = [method, header.ContentHeader(0, len(data), PROPERTIES)]
    for start in range(0, len(data), size):
        parts.append(body.ContentBody(data[start : start + size]))  # noqa: PERF401
    return b"".join(frame.marshal(part, CHANNEL) for part in parts)


PROPERTIES = commands.Basic.Properties(
    correlation_id="7", reply_to="there", headers={"a": "b"}, delivery_mode=2
)
DELIVERY = commands.Basic.Deliver("tag", 12, redelivered=True, routing_key="orders")

MESSAGES = st.builds(
    message,
    st.builds(
        commands.Basic.Deliver, st.just("tag"), TAGS, st.booleans(), EXCHANGES, KEYS
    ),
    BODIES,
    st.integers(1, LIMIT),
)
OTHERS = st.one_of(
    st.builds(commands.Basic.Ack, TAGS, st.booleans()),
    st.builds(commands.Basic.Nack, TAGS, st.booleans()),
    st.just(commands.Channel.OpenOk()),
    st.builds(commands.Queue.DeclareOk, st.just("orders"), COUNTS, COUNTS),
).map(lambda method: frame.marshal(method, CHANNEL))
STREAMS = st.lists(st.one_of(MESSAGES, OTHERS, st.just(frames.BEAT)), max_size=6)


def one(stream: bytes) -> Any:
    """Read the one item of a stream."""
    items, error = receive([stream])
    assert error is None
    ((channel, item),) = items
    assert channel == CHANNEL
    return item


# --- in ---


@given(STREAMS, CUTS)
def test_cuts_change_nothing(parts: list[bytes], cuts: list[int]) -> None:
    """However a stream is cut, the same comes out."""
    stream = b"".join(parts)
    whole, error = receive([stream])
    assert error is None
    assert receive(split(stream, cuts)) == (whole, None)
    assert len(whole) == sum(part != frames.BEAT for part in parts)


@given(BODIES, st.integers(1, LIMIT))
@example(b"", 1)
def test_message(data: bytes, size: int) -> None:
    """A message comes whole, in however many frames its body is."""
    content = one(message(DELIVERY, data, size))
    assert (content.index, content.body, content.size) == (DELIVER, data, len(data))
    assert content.properties == PROPERTIES.marshal()
    assert (content.tag, content.consumer_tag, content.redelivered) == (12, "tag", True)
    assert content.came_by == ("", "orders")


@pytest.mark.parametrize("size", [LIMIT + 1, 400])
def test_message_over_the_limit(size: int) -> None:
    """A body over the limit is passed over, and what follows it is read."""
    data = b"x" * (LIMIT + 1)
    items, error = receive([message(DELIVERY, data, size) + message(DELIVERY, b"1")])
    assert error is None
    assert [(item.body, item.size) for _, item in items] == [
        (None, LIMIT + 1),
        (b"1", 1),
    ]


@pytest.mark.parametrize("size", [400, 65_000, 131_000])
def test_head_of_a_message_over_the_limit(size: int) -> None:
    """So much is kept of it, whatever its frames, that one can tell what it was."""
    data = bytes(range(256)) * 600
    parser = Parser(LIMIT)
    ((_, item),) = parser.receive(message(DELIVERY, data, size))
    assert (item.body, item.head, item.size) == (None, data[:65_536], len(data))


@given(TAGS, st.booleans())
def test_confirms(tag: int, multiple: bool) -> None:  # noqa: FBT001
    """The broker's word on what we published is read without pamqp."""
    for kind, accepted in ((commands.Basic.Ack, True), (commands.Basic.Nack, False)):
        item = one(frame.marshal(kind(tag, multiple), CHANNEL))
        assert item == Settled(tag, multiple, accepted)


def test_returned_message() -> None:
    """A message that no queue takes says why, and where it was to go."""
    method = commands.Basic.Return(312, "NO_ROUTE", "amq.topic", "orders.new")
    content = one(message(method, b"1"))
    assert content.index == RETURN
    assert content.return_reason == ("NO_ROUTE", "orders.new")


def test_names_of_peers_are_never_refused() -> None:
    """A routing key that is no UTF-8 is read with replacements."""
    arguments = b"\x03tag" + bytes(8) + b"\x00" + b"\x00" + b"\x02\xff\xfe"
    assert Content(1, DELIVER, arguments).came_by == ("", "\ufffd\ufffd")


def test_real_bytes_split_everywhere(rabbitmq_server: RabbitMQ) -> None:
    """What a broker really says is read alike wherever it is cut."""
    queue = f"bytes-{new_id()}"
    with Peer(rabbitmq_server.url, frame_max=4096) as peer:
        peer.call(commands.Queue.Declare(queue=queue, exclusive=True))
        peer.call(commands.Confirm.Select())
        for data in (b"", b'{"pattern":"a"}', b"x" * 900):
            peer.publish("", queue, data, headers={"n": len(data)}, message_id="1")
        peer.consume(queue)
        left = 915
        while left:
            value = peer.read()
            left -= len(value.value) if isinstance(value, body.ContentBody) else 0
        peer.call(commands.Queue.Declare(queue=f"no-{queue}", passive=True))
    whole, error = receive([peer.seen])
    assert error is None
    bodies = [item[1].body for item in whole if isinstance(item[1], Content)]
    assert bodies == [b"", b'{"pattern":"a"}', b"x" * 900]
    assert whole[-1][1] == "Channel.Close"
    for place in range(1, len(peer.seen)):
        parts = [peer.seen[:place], peer.seen[place:]]
        assert receive(parts) == (whole, None), place
    assert receive([peer.seen[n : n + 1] for n in range(len(peer.seen))])[0] == whole


# --- what no broker sends ---

METHOD = frame.marshal(DELIVERY, CHANNEL)
HEADER = frame.marshal(header.ContentHeader(0, 2, PROPERTIES), CHANNEL)
BODY = frame.marshal(body.ContentBody(b"12"), CHANNEL)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x01\0\1\xff\xff\xff\xff.", FRAME_ERROR),
        (b"AMQP\0\0\x09\x01", FRAME_ERROR),
        (BODY[:-1] + b"!", FRAME_ERROR),
        (b"\x05\0\0\0\0\0\0\xce", FRAME_ERROR),
        (BODY, UNEXPECTED_FRAME),
        (HEADER, UNEXPECTED_FRAME),
        (METHOD + METHOD, UNEXPECTED_FRAME),
        (METHOD + BODY, UNEXPECTED_FRAME),
        (METHOD + HEADER + HEADER, UNEXPECTED_FRAME),
        (METHOD + HEADER + BODY[:-3] + b"\xce", FRAME_ERROR),
        (
            METHOD + HEADER + frame.marshal(body.ContentBody(b"123"), CHANNEL),
            UNEXPECTED_FRAME,
        ),
        (METHOD + b"\x02\0\3\0\0\0\x03\0\0\0\xce", UNEXPECTED_FRAME),
        (b"\x01\0\3\0\0\0\x02\0\x0a\xce", SYNTAX_ERROR),
        (b"\x01\0\3\0\0\0\x04\xff\xff\xff\xff\xce", SYNTAX_ERROR),
        (b"\x01\0\3\0\0\0\x05\0\x3c\0\x50\x01\xce", SYNTAX_ERROR),
    ],
)
def test_broken_stream(stream: bytes, code: int) -> None:
    """What is no AMQP is an error with AMQP's code, and ends the reading."""
    before = frame.marshal(commands.Channel.OpenOk(), CHANNEL)
    items, error = receive([before + stream, before])
    assert error is not None
    assert error[0] == code
    assert len(items) == 1


@given(st.binary(max_size=300), CUTS)
def test_anything_is_survived(data: bytes, cuts: list[int]) -> None:
    """Whatever comes, no exception leaves the parser."""
    receive(split(data, cuts))
    receive(split(METHOD + data, cuts))
    receive(split(METHOD + HEADER + data, cuts))


def test_method_that_nests_too_deeply() -> None:
    """A table in a table in a table does not exhaust the stack."""
    table = b""
    for _ in range(3000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    start = b"\0\x0a\0\x0a\0\x09" + len(table).to_bytes(4, "big")
    with pytest.raises(ValueError, match="cannot be read"):
        read_method(start + table)


# --- out ---


@given(EXCHANGES, KEYS, st.booleans())
def test_publish(exchange: str, key: str, mandatory: bool) -> None:  # noqa: FBT001
    """Our ``basic.publish`` is what pamqp reads."""
    packed = frames.publish(CHANNEL, exchange, key, mandatory=mandatory)
    size, channel, method = frame.unmarshal(packed)
    assert (size, channel) == (len(packed), CHANNEL)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == (exchange, key)
    assert (method.mandatory, method.immediate) == (mandatory, False)


@given(BODIES, st.integers(120, 400))
def test_content(data: bytes, frame_max: int) -> None:
    """Our header and body are what pamqp reads, in frames that are not too large."""
    rest = frames.content(CHANNEL, PROPERTIES.marshal(), data, frame_max)
    found, sizes = [], []
    while rest:
        size, _, value = frame.unmarshal(rest)
        found.append(value)
        sizes.append(size)
        rest = rest[size:]
    head, *bodies = found
    assert isinstance(head, header.ContentHeader)
    assert (head.body_size, head.properties) == (len(data), PROPERTIES)
    assert b"".join(part.value for part in bodies) == data  # type: ignore[union-attr]
    assert max(sizes) <= frame_max


def test_properties_that_fit_into_no_frame() -> None:
    """Headers over a frame's size are an error before anything is sent."""
    with pytest.raises(ValueError, match="do not fit into a frame"):
        frames.content(CHANNEL, b"x" * 4096, b"", 4096)


@given(TAGS)
def test_settling(tag: int) -> None:
    """Our acknowledgements are what pamqp reads."""
    _, _, ack = frame.unmarshal(frames.ack(CHANNEL, tag))
    _, _, all_ = frame.unmarshal(frames.ack(CHANNEL, tag, multiple=True))
    _, _, back = frame.unmarshal(frames.requeue(CHANNEL, tag))
    _, _, refused = frame.unmarshal(frames.reject(CHANNEL, tag))
    assert isinstance(ack, commands.Basic.Ack)
    assert isinstance(all_, commands.Basic.Ack)
    assert isinstance(back, commands.Basic.Nack)
    assert isinstance(refused, commands.Basic.Reject)
    assert (ack.delivery_tag, ack.multiple, all_.multiple) == (tag, False, True)
    assert (back.delivery_tag, back.multiple, back.requeue) == (tag, False, True)
    assert (refused.delivery_tag, refused.requeue) == (tag, False)


def test_short_texts() -> None:
    """A short string has at most 255 bytes."""
    assert frames.short("é") == b"\x02\xc3\xa9"
    assert frames.short(b"x" * 255) == b"\xff" + b"x" * 255
    with pytest.raises(ValueError, match="more than 255 bytes"):
        frames.short("é" * 128)
