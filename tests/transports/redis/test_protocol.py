"""Redis' protocol, without sockets: whatever way the bytes are cut."""

import socket
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.exceptions import InvalidMessage, MessageTooLarge
from django_microservices.transports.redis.protocol import (
    LONGEST_NAME,
    Conversation,
    ReplyError,
    check,
    command,
    name_of,
    publish,
    publish_head,
    target_of,
)
from tests.brokers.redis import Redis

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CUTS = st.lists(st.integers(0, 10**6), max_size=20)


class Listener:
    """Keeps what a conversation tells, in order."""

    def __init__(self, expected: int) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.conversation = Conversation(self.received, self.refused)
        self.conversation.awaited.extend([self.answered] * expected)

    def received(self, value: list[bytes]) -> None:
        """Keep a message."""
        self.heard.append(("message", value))

    def answered(self, value: Any) -> None:
        """Keep an answer; two errors of one text are not equal."""
        self.heard.append(
            ("error", str(value)) if isinstance(value, ReplyError) else ("is", value)
        )

    def refused(self, error: ReplyError) -> None:
        """Keep an error for which nobody waits."""
        self.heard.append(("refused", str(error)))


def hear(chunks: Sequence[bytes], expected: int = 100) -> list[tuple[str, Any]]:
    """Let a conversation read."""
    listener = Listener(expected)
    for chunk in chunks:
        listener.conversation.receive(chunk)
    return listener.heard


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut a stream into the chunks that a socket might give."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    bounds = [0, *places, len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds) if start < end]


# --- out ---


@given(st.lists(st.binary() | TEXTS | st.integers(), min_size=1))
def test_command(words: list[Any]) -> None:
    """A command is a list of texts, each with its length in bytes."""
    texts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    parts = [b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]
    assert command(*words) == b"*%d\r\n" % len(texts) + b"".join(parts)


@given(st.binary(), st.binary())
def test_publish(channel: bytes, body: bytes) -> None:
    """What is written by hand is what any command is."""
    head = publish_head(channel)
    assert publish(head, body) == command("PUBLISH", channel, body)


@pytest.mark.parametrize(
    "route", ["sum", "a b", '{"cmd":"what?"}', "é😀", "a.*", "x" * LONGEST_NAME]
)
def test_name(route: str) -> None:
    """A pattern's channel is its route."""
    assert name_of(route) == route.encode()


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("", "is empty"),
        ("a\r\nPING", "control characters"),
        ("a\x00", "control characters"),
        ("a\x85", "control characters"),
        ("x" * (LONGEST_NAME + 1), "longer than 4096 bytes"),
        ("é" * LONGEST_NAME, "longer than 4096 bytes"),
        ("\ud800", "half a surrogate pair"),
    ],
)
def test_name_of_no_pattern(route: str, says: str) -> None:
    """What can be no pattern is refused, and shown on one line."""
    with pytest.raises(ValueError, match=says) as caught:
        name_of(route)
    assert str(caught.value).isprintable()


@given(TEXTS)
def test_any_name_is_safe_or_refused(route: str) -> None:
    """A name that is taken is the route, whatever is in it."""
    try:
        name = name_of(route)
    except ValueError:
        return
    assert name.decode() == route


def test_wildcard_is_no_target() -> None:
    """A wildcard is nowhere to send to; an asterisk in an object is none."""
    with pytest.raises(ValueError, match=r"'a\.\*' is a wildcard"):
        target_of("a.*")
    assert target_of('{"cmd":"*"}') == b'{"cmd":"*"}'


def test_size_and_depth() -> None:
    """A body is refused for its size or its depth."""
    check(b"x" * 10, 10)
    with pytest.raises(
        MessageTooLarge, match=r"11 bytes is over max_frame_size \(10\)"
    ):
        check(b"x" * 11, 10)
    with pytest.raises(InvalidMessage, match="too deeply"):
        check(b"[" * 100 + b"]" * 100, 1000)


# --- in ---


def begins_as_message(value: Any) -> bool:
    """Whether this could be taken for a message; no answer is so."""
    return isinstance(value, list) and value[:1] in ([b"message"], [b"pmessage"])


ANSWERS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda values: st.lists(values, max_size=4),
    max_leaves=8,
).filter(lambda value: not begins_as_message(value))
MESSAGES = st.tuples(st.just(b"message"), st.binary(max_size=9), st.binary(max_size=50))
GLOB_MESSAGES = st.tuples(
    st.just(b"pmessage"), st.just(b"a*"), st.binary(max_size=9), st.binary(max_size=50)
)


def written(value: Any) -> bytes:
    """Write a value as a server does."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(map(written, value))


@given(st.lists(ANSWERS | MESSAGES | GLOB_MESSAGES, max_size=20), CUTS)
def test_any_split_is_heard_alike(values: list[Any], cuts: list[int]) -> None:
    """Answers and messages come as they were sent, however they are split."""
    stream = b"".join(map(written, values))
    assert hear(split(stream, cuts)) == [
        ("message", list(value)) if isinstance(value, tuple) else ("is", value)
        for value in values
    ]


def test_errors_are_values() -> None:
    """A refusal is handed to who waits for the answer, in its turn."""
    heard = hear([b"-NOPERM no\r\n+OK\r\n*2\r\n-ERR x\r\n:1\r\n"])
    assert heard[:2] == [("error", "NOPERM no"), ("is", b"OK")]


def test_nobody_waits() -> None:
    """An answer for which nobody waits is let go, an error is not."""
    listener = Listener(0)
    listener.conversation.awaited.extend([None, None])
    listener.conversation.receive(b":1\r\n-ERR no\r\n")
    assert listener.heard == [("refused", "ERR no")]


def test_answer_to_nothing() -> None:
    """What Redis says unasked is against the connection itself."""
    with pytest.raises(InvalidMessage, match="ERR max number of clients reached"):
        hear([b"-ERR max number of clients reached\r\n"], expected=0)


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400\r\n", b"\x15\x03\x01\x00", b"$x\r\n"])
def test_no_redis(noise: bytes) -> None:
    """Bytes of another protocol are an error."""
    with pytest.raises(InvalidMessage):
        hear([noise])


def test_a_real_server_is_heard_alike(redis_server: Redis) -> None:
    """What a real Redis says means the same, wherever it is split in two."""
    asked = [
        ("SUBSCRIBE", "real"),
        ("PSUBSCRIBE", "rea?"),
        ("PING",),
        ("GET", "x"),
        ("UNSUBSCRIBE", "real"),
        ("PUNSUBSCRIBE", "rea?"),
        ("UNSUBSCRIBE", "real"),
        ("PING",),
        ("ECHO", "é"),
        ("HGETALL", "nothing"),
        ("PUBLISH", "nobody", "x"),
        ("AUTH", "no", "such", "command"),
        ("QUIT",),
    ]
    stream = said_by(redis_server, b"".join(command(*words) for words in asked))
    whole = hear([stream], expected=len(asked))
    assert ("message", [b"message", b"real", b"1"]) in whole
    assert ("message", [b"pmessage", b"rea?", b"real", b"1"]) in whole
    assert whole[-1] == ("is", b"OK")
    assert len(whole) == len(asked) + 2
    for place in range(len(stream)):
        assert hear([stream[:place], stream[place:]], expected=len(asked)) == whole
    assert hear([bytes([byte]) for byte in stream], expected=len(asked)) == whole


def said_by(server: Redis, commands: bytes) -> bytes:
    """Return all that a server says; a message comes after the second command."""
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port or 6379), 10) as connection:
        first = commands.index(b"*1\r\n$4\r\nPING")
        connection.sendall(commands[:first])
        said = b""
        while said.count(b"subscribe") < 2:
            said += connection.recv(4096)
        server.execute("PUBLISH", "real", "1")
        connection.sendall(commands[first:])
        while data := connection.recv(4096):
            said += data
    return said
