"""NATS' protocol without a socket: packets cut, packets written, headers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.transports.nats import protocol
from django_microservices.transports.nats.protocol import (
    LARGEST,
    LONGEST_LINE,
    Packet,
    Reader,
    first_values,
    read_headers,
    read_status,
    write_headers,
)

BLOCK = b"NATS/1.0\r\ntenant: acme\r\n\r\n"
NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
SAID = [  # what a nats-server 2.15.1 said to us, word by word
    b'INFO {"server_id":"NCGC","max_payload":1048576,"headers":true} \r\n',
    b"PONG\r\n",
    b"MSG sum 1 _INBOX.abc.1 7\r\n[1,2,3]\r\n",
    b"MSG noted 2 4\r\n\r\n\r\n\r\n",
    b"PING\r\n",
    b"HMSG sum 1 _INBOX.abc.2 26 33\r\n%b[1,2,3]\r\n" % BLOCK,
    b"HMSG _INBOX.abc.3 3 16 16\r\n%b\r\n" % NO_RESPONDERS,
    b"+OK\r\n",
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
    b"MSG empty 1 0\r\n\r\n",
]
PACKETS = [
    Packet(b"INFO", b'{"server_id":"NCGC","max_payload":1048576,"headers":true} '),
    Packet(b"PONG"),
    Packet(b"MSG", b"[1,2,3]", b"sum", b"1", b"_INBOX.abc.1"),
    Packet(b"MSG", b"\r\n\r\n", b"noted", b"2"),
    Packet(b"PING"),
    Packet(b"HMSG", b"[1,2,3]", b"sum", b"1", b"_INBOX.abc.2", BLOCK),
    Packet(b"HMSG", b"", b"_INBOX.abc.3", b"3", b"", NO_RESPONDERS),
    Packet(b"+OK"),
    Packet(b"-ERR", b"'Permissions Violation for Publish to \"x\"'"),
    Packet(b"MSG", b"", b"empty", b"1"),
]


def read_all(*pieces: bytes) -> tuple[list[Packet], str | None]:
    """Feed pieces one after the other; return all packets, and the error."""
    reader = Reader()
    packets = [packet for piece in pieces for packet in reader.receive(piece)]
    return packets, reader.error


# --- cutting ----------------------------------------------------------------------


def test_packets_of_one_read() -> None:
    """All packets in what was read come at once."""
    assert read_all(b"".join(SAID)) == (PACKETS, None)


def test_cut_at_every_position() -> None:
    """Wherever a read ends, the packets are the same."""
    said = b"".join(SAID)
    for position in range(len(said) + 1):
        assert read_all(said[:position], said[position:]) == (PACKETS, None)


@given(st.lists(st.integers(0, sum(map(len, SAID)))))
def test_cut_anywhere(cuts: list[int]) -> None:
    """So they are whatever the pieces."""
    said = b"".join(SAID)
    places = sorted({0, len(said), *cuts})
    pieces = [said[start:stop] for start, stop in pairwise(places)]
    assert read_all(*pieces) == (PACKETS, None)


@pytest.mark.parametrize(
    "line",
    [
        b"MSG\r\n",
        b"MSG sum\r\n",
        b"MSG sum 1\r\n",
        b"MSG sum 1 x\r\n",
        b"MSG sum 1 -1\r\n",
        b"MSG  sum 1 a b 1\r\n",
        b"MSG sum 1 %d\r\n" % (LARGEST + 1),
        b"HMSG sum 1 5\r\n",
        b"HMSG sum 1 x 5\r\n",
        b"HMSG sum 1 6 5\r\n.....\r\n",
        b"HMSG sum 1 -1 5\r\n.....\r\n",
        b"MSG sum 1 3\r\n[1,2]\r\n",
    ],
)
def test_unreadable_line(line: bytes) -> None:
    """A line that means nothing is an error; what came before it stays."""
    packets, error = read_all(SAID[2] + line + SAID[2])
    assert packets == [PACKETS[2]]
    assert error is not None
    assert error.startswith("unreadable")


def test_endless_line() -> None:
    """A line that does not end is refused before it fills the memory."""
    packets, error = read_all(b"x" * LONGEST_LINE, b"xx")
    assert packets == []
    assert error == f"a line of more than {LONGEST_LINE} bytes"


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """No bytes make the reader fail."""
    read_all(data, data)


def test_large_message_in_many_pieces() -> None:
    """A message larger than a read is put together."""
    body = b"x" * 300_000
    said = b"MSG big 1 300000\r\n%b\r\n" % body
    pieces = [said[start : start + 1000] for start in range(0, len(said), 1000)]
    assert read_all(*pieces) == ([Packet(b"MSG", body, b"big", b"1")], None)


# --- writing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "headers", "written"),
    [
        (b"", b"", b"PUB sum 3\r\n123\r\n"),
        (b"me", b"", b"PUB sum me 3\r\n123\r\n"),
        (b"", BLOCK, b"HPUB sum 26 29\r\n%b123\r\n" % BLOCK),
        (b"me", BLOCK, b"HPUB sum me 26 29\r\n%b123\r\n" % BLOCK),
    ],
)
def test_message_is_written(reply: bytes, headers: bytes, written: bytes) -> None:
    """A message has a reply subject and headers only where there are some."""
    assert protocol.publish(b"sum", reply, headers, b"123") == written


def test_subscriptions_are_written() -> None:
    """A subscription is in a queue group, or not, and can be ended."""
    assert protocol.subscribe(b"a.*", b"", b"7") == b"SUB a.* 7\r\n"
    assert protocol.subscribe(b"a.*", b"orders", b"7") == b"SUB a.* orders 7\r\n"
    assert protocol.unsubscribe(b"7") == b"UNSUB 7\r\n"


def test_connect_is_written() -> None:
    """The answer to INFO is JSON in one line."""
    assert protocol.connect({"name": "a\nb"}) == b'CONNECT {"name": "a\\nb"}\r\n'


# --- headers ----------------------------------------------------------------------

names = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True)
values = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20
)


@given(st.dictionaries(names, values, min_size=1))
def test_headers_arrive_as_they_were(headers: dict[str, str]) -> None:
    """What is written is read again, spaces and all."""
    block = write_headers(headers)
    assert dict(read_headers(block)) == first_values(block) == headers
    assert read_status(block) == (0, "")


def test_no_headers() -> None:
    """Without headers there is no block."""
    assert write_headers({}) == b""


@pytest.mark.parametrize(
    "headers",
    [{"": "x"}, {"a b": "x"}, {"a:": "x"}, {"ä": "x"}, {"a": "x\r\ny: z"}, {"a": "\n"}],
)
def test_header_that_nats_cannot_carry(headers: dict[str, str]) -> None:
    """A header that would become another one is refused."""
    with pytest.raises(ValueError, match="NATS cannot carry"):
        write_headers(headers)


def test_headers_of_others() -> None:
    """Repeated names are kept, the first one counts; what is no header is left out."""
    block = b"NATS/1.0\r\na:1\r\nb: 2\r\na: 3\r\nnothing\r\n\xff: \xff\r\n\r\n"
    found = [("a", "1"), ("b", "2"), ("a", "3"), ("\ufffd", "\ufffd")]
    assert read_headers(block) == found
    assert first_values(block) == {"a": "1", "b": "2", "\ufffd": "\ufffd"}


def test_known_headers_are_not_shared() -> None:
    """A handler that changes its headers changes nobody else's."""
    first_values(BLOCK)["tenant"] = "other"
    assert first_values(BLOCK) == {"tenant": "acme"}


def test_known_headers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What peers write does not fill the memory."""
    known: dict[bytes, dict[str, str]] = {}
    monkeypatch.setattr(protocol, "_known", known)
    for number in range(2000):
        first_values(b"NATS/1.0\r\nn: %d\r\n\r\n" % number)
    first_values(b"NATS/1.0\r\nn: %b\r\n\r\n" % (b"x" * 1000))
    assert 0 < len(known) <= 1024


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (NO_RESPONDERS, (503, "")),
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", (409, "Consumer Deleted")),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last: 7\r\n\r\n",
            (100, "Idle Heartbeat"),
        ),
        (b"NATS/1.0 what\r\n\r\n", (0, "")),
        (b"NATS/1.0 %b\r\n\r\n" % (b"9" * 5000), (0, "")),
        (BLOCK, (0, "")),
    ],
)
def test_status(block: bytes, status: tuple[int, str]) -> None:
    """What NATS itself says stands in the first line."""
    assert read_status(block) == status
