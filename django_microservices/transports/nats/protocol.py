"""NATS' client protocol without I/O: lines of text, some with bytes behind them.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol. Fields stand
apart by one space and lines end with CR LF; names are case-sensitive bytes.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...wire.text import shown

INFO, MSG, HMSG, PING, PONG, OK, ERR = (
    b"INFO",
    b"MSG",
    b"HMSG",
    b"PING",
    b"PONG",
    b"+OK",
    b"-ERR",
)
WRITTEN_PING, WRITTEN_PONG = b"PING\r\n", b"PONG\r\n"

LONGEST_LINE = 64 * 1024  # an INFO names all servers of a cluster
LONGEST_SUBJECTS = 4000
"""Bytes of subject and reply subject: their line has 4096 at most, numbers included."""

LARGEST = 64 * 1024 * 1024  # the most that a server can be told to let through
_FEWEST_FIELDS = {MSG: 4, HMSG: 5}  # one more where there is a reply subject

_NO_RESPONDERS = 503
MESSAGE_ID = "Nats-Msg-Id"
_VERSION = b"NATS/1.0"
_CODE = 3  # digits of a status
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_END = re.compile(r"[\r\n]")


class Packet(msgspec.Struct, gc=False):
    """One thing that a server said.

    A message has ``subject`` and ``sid``, and ``reply`` and ``headers`` where it has
    them; of what else is said ``body`` is the rest of the line.
    """

    op: bytes
    body: bytes = b""
    subject: bytes = b""
    sid: bytes = b""
    reply: bytes = b""
    headers: bytes = b""


class Reader:
    """Cuts a stream of bytes into packets.

    After ``error`` is set (a text that says why) nothing more is read.
    """

    __slots__ = ("_rest", "_wanted", "error")

    def __init__(self) -> None:
        self.error: str | None = None
        self._rest: bytearray | None = None
        self._wanted = 0

    def receive(self, data: bytes) -> list[Packet]:
        """Take what was read; return the packets that are complete now."""
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest = None
        packets: list[Packet] = []
        position, end = 0, len(data)
        while (stop := data.find(b"\r\n", position)) >= 0:
            fields = data[position:stop].split(b" ")
            op = fields[0]
            few = _FEWEST_FIELDS.get(op)
            if few is None:
                words = data[position + len(op) + 1 : stop]
                packets.append(Packet(op, words))
                position = stop + 2
                continue
            start = stop + 2
            try:
                after = start + int(fields[-1])
                body = start + int(fields[-2]) if op == HMSG else start
            except (ValueError, IndexError):
                body = after = -1
            if after + 2 > end and after - start <= LARGEST:
                self._wanted = after + 2 - position
                break
            if (
                not start <= body <= after
                or not few <= len(fields) <= few + 1
                or data[after : after + 2] != b"\r\n"
            ):
                line = data[position:stop].decode(errors="replace")
                self.error = f"unreadable: {shown(line)}"
                break
            reply = fields[3] if len(fields) > few else b""
            packets.append(
                Packet(
                    op,
                    data[body:after],
                    fields[1],
                    fields[2],
                    reply,
                    data[start:body],
                )
            )
            position = after + 2
        else:
            self._wanted = 0
            if end - position > LONGEST_LINE:
                self.error = f"a line of more than {LONGEST_LINE} bytes"
        if position < end and self.error is None:
            self._rest = bytearray(data[position:])
        return packets


# --- what a client says -----------------------------------------------------------


def connect(options: Mapping[str, Any]) -> bytes:
    """Write the answer to a server's INFO."""
    return b"CONNECT %b\r\n" % json.dumps(options).encode()


def subscribe(subject: bytes, queue: bytes, sid: bytes) -> bytes:
    """Write a subscription under the number ``sid``; an empty queue is none."""
    if queue:
        return b"SUB %b %b %b\r\n" % (subject, queue, sid)
    return b"SUB %b %b\r\n" % (subject, sid)


def unsubscribe(sid: bytes) -> bytes:
    """Write the end of a subscription."""
    return b"UNSUB %b\r\n" % sid


def publish(subject: bytes, reply: bytes, headers: bytes, body: bytes) -> bytes:
    """Write a message; an empty ``reply`` and empty ``headers`` are none."""
    if headers:
        size = len(headers)
        total = size + len(body)
        if reply:
            return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
                subject,
                reply,
                size,
                total,
                headers,
                body,
            )
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, size, total, headers, body)
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body)


# --- headers ----------------------------------------------------------------------


def is_header(name: str, value: str) -> bool:
    """Whether NATS takes this header as it is."""
    return bool(_HEADER_NAME.fullmatch(name)) and not _LINE_END.search(value)


def write_headers(headers: Mapping[str, str]) -> bytes:
    """Write the block of headers, or nothing where there are none.

    Raises :class:`ValueError` for a name that is no token, and a value of two lines.
    """
    if not headers:
        return b""
    lines = [_VERSION]
    for name, value in headers.items():
        if not is_header(name, value):
            message = (
                f"headers: NATS cannot carry {shown(name)!r}: names are tokens, and "
                "values one line."
            )
            raise ValueError(message)
        lines.append(f"{name}: {value}".encode(errors="replace"))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def read_headers(block: bytes) -> list[tuple[str, str]]:
    """Read all headers of a block, in order; what is no header is left out."""
    found = []
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.decode(errors="replace").partition(":")
        if colon:
            found.append((name, value.removeprefix(" ")))
    return found


def first_values(block: bytes) -> dict[str, str]:
    """Read the headers of a block: of a name that stands there twice the first one."""
    known = _known.get(block)
    if known is None:
        known = dict(reversed(read_headers(block)))
        if len(block) <= _SHORT:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[block] = known
    return known.copy()


_SHORT = 256
_MOST_KNOWN = 1024
_known: dict[bytes, dict[str, str]] = {}
"""What the few blocks that recur say: bounded, since peers write them."""


def read_status(block: bytes) -> tuple[int, str]:
    """Read the status of a block and the words behind it; 0 where it has none."""
    line = block[len(_VERSION) : block.find(b"\r\n")].strip()
    code, _, words = line.partition(b" ")
    known = len(code) == _CODE and code.isdigit()
    return (int(code) if known else 0), words.decode(errors="replace")


def is_unheard(block: bytes) -> bool:
    """Whether this is NATS' own answer to what nobody listens to, which has no body."""
    return bool(block) and read_status(block)[0] == _NO_RESPONDERS
