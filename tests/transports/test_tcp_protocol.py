"""Frames, without sockets: cut at will, and never trusted."""

import codecs
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_microservices.transports.tcp import JsonSocket
from django_microservices.transports.tcp.protocol import MAX_HEADER, frame, units

LIMIT = 1000
PARTIAL, DONE, ERROR, DOOMED = "partial", "done", "error", "doomed"

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))


def reference(stream: bytes) -> tuple[list[bytes], str]:
    """Read byte by byte: the frames, and how it ends.

    ``DOOMED`` is a text that is no UTF-8: refused now, or once it is complete.
    """
    frames: list[bytes] = []
    while stream:
        digits, mark, rest = stream[:MAX_HEADER].partition(b"#")
        if not digits.isdigit():
            return frames, ERROR
        if not mark:
            return frames, ERROR if len(digits) == MAX_HEADER else PARTIAL
        if int(digits) > LIMIT:
            return frames, ERROR
        rest = stream[len(digits) + 1 :]
        end, outcome = text_end(rest, int(digits))
        if outcome != DONE:
            return frames, outcome
        frames.append(rest[:end])
        stream = rest[end:]
    return frames, DONE


def text_end(data: bytes, length: int) -> tuple[int, str]:
    """Count the UTF-16 units of one character after the other."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    found = 0
    for position in range(len(data) + 1):
        if found >= length:
            return position, DONE if found == length else ERROR
        try:
            character = decoder.decode(data[position : position + 1])
        except UnicodeDecodeError:
            return position, DOOMED
        found += len(character.encode("utf-16-le")) // 2
    return len(data), PARTIAL


def receive(chunks: Sequence[bytes]) -> tuple[list[bytes], str]:
    """Let our parser read."""
    socket = JsonSocket(LIMIT)
    frames: list[bytes] = []
    for chunk in chunks:
        if socket.error is None:
            frames += socket.receive(chunk)
    if socket.error is not None:
        assert not socket.partial
        return frames, ERROR
    return frames, PARTIAL if socket.partial else DONE


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut a stream into the chunks that a socket might give."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    bounds = [0, *places, len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds) if start < end]


CUTS = st.lists(st.integers(0, 10**6), max_size=20)


# --- good streams ---


@given(TEXTS, CUTS)
@example(["😀é€" * 10], list(range(200)))
def test_any_split_gives_the_same_frames(texts: list[str], cuts: list[int]) -> None:
    """Frames come out as they were written, however they are split and merged."""
    encoded = [text.encode() for text in texts]
    stream = b"".join(map(JsonSocket.write, encoded))
    assert receive(split(stream, cuts)) == (encoded, DONE)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_length_is_utf16(text: str) -> None:
    """The length in front counts UTF-16 units, as JavaScript does."""
    length = len(text.encode("utf-16-le")) // 2
    assert units(text.encode()) == length
    assert frame(text.encode()) == b"%d#" % length + text.encode()


def test_large_length_is_written() -> None:
    """Lengths that no table holds are written too."""
    assert frame(b"x" * 5000).startswith(b"5000#x")


@given(TEXTS, st.integers(0, 10**6), CUTS)
def test_truncated_stream(texts: list[str], length: int, cuts: list[int]) -> None:
    """What is cut off gives the frames before it, and waits for the rest."""
    stream = b"".join(frame(text.encode()) for text in texts)
    stream = stream[: length % (len(stream) + 1)]
    assert receive(split(stream, cuts)) == reference(stream)


# --- bad streams ---


@given(
    TEXTS, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5), CUTS
)
@example(["a"], [], [])
def test_mutated_stream(
    texts: list[str], changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Wherever bytes change, the outcome is the reference's, for every split."""
    mutated = bytearray(b"".join(frame(text.encode()) for text in texts))
    for place, byte in changes:
        if mutated:
            mutated[place % len(mutated)] = byte
    agree(bytes(mutated), cuts)


@given(st.binary(max_size=60), CUTS)
@example(b"3#\xf0\x9f\x98\x80", [])
@example(b"1#\xf0\x9f\x98\x80", [2, 3, 4])
@example(b"9#\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", [])
@example(b"1#\xe2\x80\x80\x80\x80\x80\x80\x80\x80", [4, 6])
def test_noise(stream: bytes, cuts: list[int]) -> None:
    """Bytes that never were a stream have the reference's outcome as well."""
    agree(stream, cuts)


@given(st.binary(max_size=60), CUTS)
def test_noise_behind_a_length(noise: bytes, cuts: list[int]) -> None:
    """So has noise in a frame."""
    agree(b"20#" + noise, cuts)


def agree(stream: bytes, cuts: Sequence[int]) -> None:
    """Compare with the reference."""
    frames, outcome = reference(stream)
    found, ours = receive(split(stream, cuts))
    assert found == frames
    assert ours in ((PARTIAL, ERROR) if outcome == DOOMED else (outcome,))


HEADERS = {
    b"#": "no length in front of the frame: b''",
    b"abc#{}": "b'abc'",
    b"-5#{}": "b'-5'",
    b"+12#{}": "b'\\+12'",
    b" 2#{}": "b' 2'",
    b"2 #{}": "b'2 '",
    b"2.9#{}": "b'2.9'",
    b"12abc#{}": "b'12abc'",
    b"1e3#{}": "b'1e3'",
    b"0x5#{}": "b'0x5'",
    b"\n2#{}": r"b'\\n2'",
    b"\xef\xbb\xbf2#{}": r"b'\\xef\\xbb\\xbf2'",
    "٢#{}".encode(): r"b'\\xd9\\xa2'",
    b"1001#{}": "a frame of 1001 is over 1000",
    b"99999999999#": "a frame of 99999999999 is over 1000",
    b"1" * 31 + b"#": "no length .*b'111111111111'$",
    b"000000000002#{}": "no length .*b'000000000002'$",
    b"{": "b'{'",
    b"GET / HTTP/1.1\r\n": "looks like HTTP",
    b"GET /#a HTTP/1.1\r\n": "looks like HTTP",
    b"\x16\x03\x01\x02\x00": "looks like TLS",
    b"2#\xff{}{}": "not UTF-8 at byte 0",
    b"2#\x80\x80\x80{}": "not UTF-8 at byte 0",
    b'4#"\xe9"x': "not UTF-8 at byte 1",
    b"1#\xf0\x9f\x98\x80": "ends inside a surrogate pair",
    b"5#" + b"\x80" * 50: "too many bytes for its length",
}


@pytest.mark.parametrize(("stream", "says"), HEADERS.items())
def test_malformed(stream: bytes, says: str) -> None:
    """Every malformed input is refused, and the reason is told."""
    socket = JsonSocket(LIMIT)
    assert socket.receive(stream) == []
    assert socket.error is not None
    assert re.search(says, socket.error)
    assert not socket.partial


@pytest.mark.parametrize(
    ("stream", "texts"),
    [(b"0#", [b""]), (b"0012#{}          ", [b"{}          "]), (b"2#{}", [b"{}"])],
)
def test_digits_only(stream: bytes, texts: list[bytes]) -> None:
    """Digits are a length, with zeros in front as well."""
    assert receive([stream]) == (texts, DONE)


def test_frames_before_the_fault() -> None:
    """What was complete before the fault is handed out, what follows is not."""
    socket = JsonSocket(LIMIT)
    assert socket.receive(b"2#{}x#2#{}") == [b"{}"]
    assert socket.error is not None


# --- how much is looked at, and kept ---


def test_twelve_bytes_decide() -> None:
    """Eleven digits may still become a length; the twelfth byte decides."""
    socket = JsonSocket(LIMIT)
    for _ in range(MAX_HEADER - 1):
        assert socket.receive(b"1") == []
        assert (socket.error, socket.partial) == (None, True)
    socket.receive(b"1")
    assert socket.error == "no length in front of the frame: b'111111111111'"


def test_nothing_is_kept_without_a_delimiter() -> None:
    """Of a flood without a delimiter no byte is kept, and twelve are told."""
    socket = JsonSocket(LIMIT)
    assert socket.receive(b"7" * 10**6) == []
    assert socket._buffer is None
    assert socket.error == f"no length in front of the frame: {b'7' * 12!r}"


def test_announced_length_is_refused_at_once() -> None:
    """A frame that is too large is refused before any of it came."""
    socket = JsonSocket(LIMIT)
    socket.receive(b"999999999#")
    assert socket.error == "a frame of 999999999 is over 1000"
    assert socket._buffer is None


@pytest.mark.parametrize("filling", [b"\x80", b"\xbf\x80"])
def test_bytes_that_count_nothing(filling: bytes) -> None:
    """Bytes that begin no character cannot fill a frame for ever."""
    socket = JsonSocket(LIMIT)
    fed = 0
    while socket.error is None:
        socket.receive(b"1000#" if not fed else filling * 500)
        fed += 500
        assert fed < 10 * LIMIT


def test_dripping_frame_is_cheap() -> None:
    """A frame that comes byte by byte is not read again for every byte."""
    text = ("€" * 900).encode()
    socket = CountingSocket(LIMIT)
    for byte in frame(text)[:-1]:
        assert socket.receive(bytes([byte])) == []
    assert socket.receive(text[-1:]) == [text]
    assert socket.looks < 40


class CountingSocket(JsonSocket):
    """Counts how often it looks at the text of a frame."""

    looks = 0

    def _stop(self, data: bytes, start: int, length: int) -> int:
        self.looks += 1
        return super()._stop(data, start, length)


# --- frames that are let pass ---


def receive_past(chunks: Sequence[bytes]) -> tuple[list[bytes], list[bytes], str]:
    """Let our parser read, and let pass what is too large: frames, ends, outcome."""
    socket, ends = JsonSocket(LIMIT), []

    def stand_in(text: bytes) -> bytes:
        ends.append(text)
        return b"large"

    socket.stand_in = stand_in
    frames: list[bytes] = []
    for chunk in chunks:
        if socket.error is None:
            frames += socket.receive(chunk)
    if socket.error is not None:
        return frames, ends, ERROR
    return frames, ends, PARTIAL if socket.partial else DONE


@given(TEXTS, st.text("a€😀", min_size=LIMIT + 1, max_size=4 * LIMIT), CUTS)
def test_large_frame_is_let_pass(texts: list[str], large: str, cuts: list[int]) -> None:
    """Something takes its place, and it is known how it began and ended."""
    encoded = [text.encode() for text in texts]
    around = b"".join(map(frame, encoded))
    whole = f'{{"response":"{large}","id":"7"}}'.encode()
    stream = around + frame(whole) + around
    frames, (ends,), outcome = receive_past(split(stream, cuts))
    assert (frames, outcome) == ([*encoded, b"large", *encoded], DONE)
    beginning, end = ends.split(b"\\")
    assert whole.startswith(beginning)
    assert whole.endswith(end)
    assert min(len(beginning), len(end)) >= 128


def test_large_frame_costs_nothing() -> None:
    """While it passes, only its ends are kept; it counts as begun."""
    socket = JsonSocket(LIMIT)
    socket.stand_in = lambda _: b""
    socket.receive(b"%d#{" % (64 * LIMIT))
    for _ in range(63):
        assert socket.receive(b"x" * LIMIT) == []
        assert socket.partial
    assert socket._large is not None
    assert len(socket._large.ends) < LIMIT
    assert socket._buffer is None
    assert socket.receive(b"x" * (LIMIT - 1) + b"2#{}") == [b"", b"{}"]
    assert (socket.partial, socket.error) == (False, None)


@pytest.mark.parametrize(
    "stream",
    [
        b"1001#" + b"x" * 1000 + "é".encode(),
        b"1001#" + b"x" * 1000 + "😀".encode(),
        b"1001#" + b"x" * 1000 + b"\x80" * 100,
        b"64001#",
        b"99999999999#",
    ],
)
def test_large_frame_that_is_not_let_pass(stream: bytes) -> None:
    """What is no JSON, or absurd, is refused all the same."""
    for chunks in ([stream], [stream[:6], stream[6:]]):
        assert receive_past(chunks) == ([], [], ERROR)


def test_large_frame_of_nobody() -> None:
    """Where it is not known whose it was, it is an error in the end."""
    socket = JsonSocket(LIMIT)
    socket.stand_in = lambda _: None
    assert socket.receive(b"1001#" + b"x" * 1001 + b"2#{}") == []
    assert socket.error == "a frame of 1001 is over 1000"
    assert not socket.partial


def test_many_tiny_frames() -> None:
    """100,000 frames in one chunk are cut without recursion."""
    assert JsonSocket(LIMIT).receive(b"2#{}" * 100_000) == [b"{}"] * 100_000
