"""The frames of Nest's TCP wire, without I/O: ``<length>#<JSON>``.

``length`` counts UTF-16 code units of the text, whose bytes are UTF-8
(``reference/nest-wire.md`` A.3): an emoji counts 2, an accented letter 1.
"""

from collections.abc import Callable

MAX_HEADER = 12
MOST_SKIPPED = 64
"""How many times larger than allowed a frame may be that is let pass."""

_ENDS = 256
_CONTINUATIONS = bytes(range(0x80, 0xC0))
_ASTRAL_LEADS = bytes(range(0xF0, 0x100))
_WIDER = (0xC0, 0xE0, 0xF0)  # the first lead bytes of two, three and four bytes
_MOST_BYTES = 3  # of UTF-8 for one unit
_PREFIXES = [b"%d#" % length for length in range(2048)]


def units(text: bytes) -> int:
    """Return how many UTF-16 code units a UTF-8 text has.

    Counts lead bytes, those of four-byte sequences twice; a sequence that is cut off
    at the end counts already.
    """
    leads = text.translate(None, _CONTINUATIONS)
    return 2 * len(leads) - len(leads.translate(None, _ASTRAL_LEADS))


def frame(text: bytes) -> bytes:
    """Put the length in front of a text."""
    length = len(text) if text.isascii() else units(text)
    prefix = _PREFIXES[length] if length < len(_PREFIXES) else b"%d#" % length
    return prefix + text


class JsonSocket:
    """Cuts a stream of bytes into frames; Nest's class of that name.

    ``socket_class=`` replaces it: the same four members (``write``, ``receive``,
    ``partial`` and ``error``) make a framing of your own. After ``error`` is set (a
    text that says why) nothing more is read.

    ``stand_in``, where set, is called with the two ends of a frame that was too large
    and was let pass, and returns the text to take in its place; ``None`` refuses it.
    """

    __slots__ = ("_buffer", "_large", "_wanted", "error", "max_frame_size", "stand_in")

    def __init__(self, max_frame_size: int) -> None:
        self.max_frame_size = max_frame_size
        self.error: str | None = None
        self.stand_in: Callable[[bytes], bytes | None] | None = None
        self._large: _LargeFrame | None = None
        self._buffer: bytearray | None = None
        self._wanted = 0

    write = staticmethod(frame)

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._buffer is not None or self._large is not None

    def receive(self, data: bytes) -> list[bytes]:
        """Take what was read; return the texts that are complete now."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer = None
        frames: list[bytes] = []
        end = len(data)
        position = 0 if self._large is None else self._skip(data, 0, frames)
        while position < end:
            mark = data.find(b"#", position, position + MAX_HEADER)
            if mark < 0:
                self._check_header(data[position : position + MAX_HEADER])
                self._wanted = 0
                break
            digits = data[position:mark]
            if not digits.isdigit():
                self._refuse_header(digits)
                return frames
            length = int(digits)
            mark += 1
            if length > self.max_frame_size:
                position = self._begin_to_skip(length, data, mark, frames)
                continue
            stop = mark + length
            text = data[mark:stop]
            if stop > end or not text.isascii():
                stop = self._stop(data, mark, length)
                if stop > end or self.error:
                    self._wanted = stop - position
                    break
                text = data[mark:stop]
            frames.append(text)
            position = stop
        if position < end and not self.error:
            self._buffer = bytearray(data[position:])
        return frames

    def _begin_to_skip(
        self, length: int, data: bytes, start: int, frames: list[bytes]
    ) -> int:
        """Let a large frame pass, or refuse it; return where to read on."""
        if self.stand_in is None or length > MOST_SKIPPED * self.max_frame_size:
            self.error = f"a frame of {length} is over {self.max_frame_size}"
            return len(data)
        self._large = _LargeFrame(length)
        return self._skip(data, start, frames)

    def _skip(self, data: bytes, start: int, frames: list[bytes]) -> int:
        large = self._large
        assert large is not None
        assert self.stand_in is not None
        stop = large.take(data, start)
        if large.left <= 0:
            self._large = None
            text = self.stand_in(large.ends) if large.is_text else None
            if text is None:
                self.error = f"a frame of {large.length} is over {self.max_frame_size}"
                return len(data)
            frames.append(text)
        return stop

    def _check_header(self, header: bytes) -> None:
        """Refuse at once what can never become a length."""
        if not header.isdigit() or len(header) == MAX_HEADER:
            self._refuse_header(header)

    def _refuse_header(self, header: bytes) -> None:
        self.error = f"no length in front of the frame: {header!r}"
        if header.startswith((b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ")):
            self.error += " (this looks like HTTP)"
        elif header.startswith(b"\x16\x03"):
            self.error += " (this looks like TLS on a plain port)"

    def _stop(self, data: bytes, start: int, length: int) -> int:
        """Return where the text ends, or the least byte it needs before it can.

        Each round counts the units of as many bytes as there are units left: never
        too many, and few rounds, since a unit is at most three bytes.
        """
        stop, left, end = start, length, len(data)
        while left > 0:
            if stop - start > _MOST_BYTES * (length - left + 1):
                self.error = "not UTF-8: too many bytes for its length"
                return stop
            if stop + left > end:
                return stop + left
            chunk = data[stop : stop + left]
            stop += left
            left -= units(chunk)
        stop = max(stop, _character_end(data, stop - 1))
        return self._checked(data, start, stop, left)

    def _checked(self, data: bytes, start: int, stop: int, left: int) -> int:
        try:
            data[start:stop].decode()
        except UnicodeDecodeError as error:
            if stop <= len(data) or error.reason != "unexpected end of data":
                self.error = f"not UTF-8 at byte {error.start}"
        else:
            if left < 0:
                self.error = "the length ends inside a surrogate pair"
        return stop


class _LargeFrame:
    """What is known of a frame that is let pass.

    ``left`` are the units that are still to come. ``is_text`` is False for what can be
    no JSON: bytes that begin no character, or one of several bytes at the end.
    """

    __slots__ = ("_head", "_nothing", "_tail", "is_text", "left", "length")

    def __init__(self, length: int) -> None:
        self.length = self.left = length
        self.is_text = True
        self._head = self._tail = b""
        self._nothing = 0

    def take(self, data: bytes, start: int) -> int:
        """Take what belongs to the frame; return where that ends."""
        position, end = start, len(data)
        while self.left > 0 and position < end:
            part = data[position : position + self.left]
            position += len(part)
            self._count(len(part), units(part))
        part = data[start:position]
        self._head += part[: _ENDS - len(self._head)]
        self._tail = (self._tail + part[-_ENDS:])[-_ENDS:]
        if self.left <= 0 and not self._tail[-1:].isascii():
            self.is_text = False
        return position

    def _count(self, size: int, found: int) -> None:
        self.left -= found
        self._nothing = 0 if found else self._nothing + size
        if self.left < 0 or self._nothing > _MOST_BYTES:
            self.is_text, self.left = False, 0

    @property
    def ends(self) -> bytes:
        """How it begins and ends, with what is in no id between the two."""
        return self._head + b"\\" + self._tail


def _character_end(data: bytes, position: int) -> int:
    """Return where the character ends that the byte at ``position`` is part of."""
    lead = position
    while data[lead] in _CONTINUATIONS and position - lead < _MOST_BYTES:
        lead -= 1
    return lead + 1 + sum(data[lead] >= first for first in _WIDER)
