"""What peers cost a server in memory: many that are idle, and each that means harm."""

import contextlib
import json
import resource
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.brokers.process import ServerUnavailableError
from tests.interop.process import ChildFailedError

from .candidates import BARE, Start, django, nest, serve
from .certificates import make
from .report import table
from .wires import TCP
from .workloads import ECHO, HUNDRED_KILOBYTES, SUM

KB, MB = 1024, 1024 * 1024
CAP = 16 * MB  # of unread output, the server's default, said aloud
POUR = 256 * MB  # at most, to a server that does not mind
PATIENCE = 15.0  # seconds for a server to cut a peer
STUCK = 1.0  # seconds without room to write: the server has stopped reading
WARM = 50  # connections before counting, which pay what is paid once

MANY = {"max_connections": 100_000, "max_connections_per_address": 100_000}
OURS = django("ours_server", handlers="coroutines", options=MANY)


class Poured(NamedTuple):
    """How many bytes a server took, and why no more."""

    sent: int
    end: str  # "cut", "stuck" or "open"


class Row(NamedTuple):
    """One figure, and the most that it should be; both in bytes."""

    name: str
    bytes: float
    wanted: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """Lay it out."""
        if self.wanted is None:
            return [self.name, _size(self.bytes), "", "", self.note]
        verdict = "reached" if self.bytes <= self.wanted else "MISSED"
        return [self.name, _size(self.bytes), _size(self.wanted), verdict, self.note]


def measure(count: int) -> tuple[str, bool]:
    """Return the table, with ``count`` idle connections, and whether it is whole."""
    count = min(count, _open_files() - 500)
    rows: list[Row] = []
    failures: list[str] = []
    for name, measured in _parts(count).items():
        try:
            rows += measured()
        except ServerUnavailableError as error:
            failures.append(f"--- {name} skipped: {error}")
        except (ChildFailedError, OSError) as error:
            failures.append(f"!!! {name} FAILED: {error!r}")
    head = [f"RSS, {count:,} idle connections", "is", "wanted", "", ""]
    text = table(head, [row.cells() for row in rows])
    whole = not any(line.startswith("!!!") for line in failures)
    return "\n".join([text, *failures]), whole


def _parts(count: int) -> dict[str, Callable[[], Iterable[Row]]]:
    return {
        "nest, idle": lambda: _idle("nest", nest("server.mjs"), count),
        "bare, idle": lambda: _idle("bare", BARE, count),
        "ours, idle": lambda: _idle("ours", OURS, count, wanted=10 * KB),
        "ours, idle TLS": lambda: _idle_tls(count),
        "ours, announced": lambda: _cut(
            "ours: a peer that announces 999999999", b"999999999#", b"x" * 64 * KB
        ),
        "ours, endless": lambda: _cut(
            "ours: a peer that never sends #", b"", b"1" * 64 * KB
        ),
        "ours, unread": _never_reads,
    }


# --- idle peers ---


def _idle(
    name: str, start: Start, count: int, wanted: float | None = None
) -> Iterator[Row]:
    with _served(start) as (port, pid), contextlib.ExitStack() as stack:
        for _ in range(WARM):
            _ask(stack.enter_context(_connect(port)))
        before = rss(pid)
        peers = [stack.enter_context(_connect(port)) for _ in range(count)]
        _ask(peers[-1])  # it was accepted last, so all were
        silent = (rss(pid) - before) / count
        for peer in peers:
            _ask(peer)
        yield Row(f"{name}: a connection", silent, wanted)
        used = (rss(pid) - before) / count
        yield Row(f"{name}: a connection that has asked once", used, wanted)


def _idle_tls(count: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        options = {**MANY, "tls_options": make(Path(folder))}
        start = django("ours_server", handlers="coroutines", options=options)
        size = _tls_connection(start, count)
    yield Row("ours: a TLS connection", size, 30 * KB)


def _tls_connection(start: Start, count: int) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _served(start) as (port, pid), contextlib.ExitStack() as stack:
        for _ in range(WARM):
            _ask(stack.enter_context(context.wrap_socket(_connect(port))))
        before = rss(pid)
        for _ in range(count):
            # Our half of TLS is dropped: the server's is what counts.
            descriptor = context.wrap_socket(_connect(port)).detach()
            stack.enter_context(socket.socket(fileno=descriptor))
        _ask(stack.enter_context(context.wrap_socket(_connect(port))))
        return (rss(pid) - before) / count


# --- peers that mean harm ---


def _cut(name: str, first: bytes, then: bytes) -> Iterator[Row]:
    with _served(OURS) as (port, pid), _connect(port) as peer:
        _ask(peer)
        grown = _growth(pid)
        start = time.monotonic()
        sent, end = _pour(peer, first, then, until=_hung_up)
        spent = (time.monotonic() - start) * 1000
        how = f"cut after {spent:.0f} ms" if end == "cut" else f"NOT CUT, {end}"
        yield Row(name, grown(), MB, f"{_size(sent)} written, {how}")


def _never_reads() -> Iterator[Row]:
    request = {"pattern": ECHO, "data": HUNDRED_KILOBYTES, "id": "1"}
    frame = _frame(request)
    options = {**MANY, "max_send_buffer_size": CAP}
    server = django("ours_server", handlers="coroutines", options=options)
    with _served(server) as (port, pid), _connect(port) as peer:
        grown = _growth(pid)
        sent, end = _pour(peer, b"", frame, until=lambda _: False)
        note = f"{_size(sent)} of requests written, {end}, cap {_size(CAP)}"
        yield Row("ours: a reader that never reads", grown(), 2 * CAP, note)


def _pour(
    peer: socket.socket,
    first: bytes,
    then: bytes,
    until: Callable[[socket.socket], bool],
) -> Poured:
    """Write until cut, stuck, or far too much."""
    sent, rest = 0, first + then
    deadline = time.monotonic() + PATIENCE
    peer.setblocking(False)
    try:
        while sent < POUR and time.monotonic() < deadline:
            if until(peer):
                return Poured(sent, "cut")
            if not _ready(peer, select.POLLOUT, STUCK):
                return Poured(sent, "stuck")
            written = peer.send(rest)
            sent += written
            rest = rest[written:] or then
    except ConnectionError:
        return Poured(sent, "cut")
    return Poured(sent, "open")


def _hung_up(peer: socket.socket) -> bool:
    return _ready(peer, select.POLLIN, 0) and not peer.recv(KB)


def _ready(peer: socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(peer, event)
    return bool(poll.poll(seconds * 1000))


# --- the server's memory ---


def rss(pid: int) -> int:
    """Return the resident bytes of a process."""
    return _status(pid, "VmRSS")


def _growth(pid: int) -> Callable[[], int]:
    """Return a function that says by how much memory has at most grown since now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
    before = rss(pid)
    return lambda: _status(pid, "VmHWM") - before


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    text = next(line for line in lines if line.startswith(f"{name}:"))
    return int(text.split()[1]) * KB


def _size(size: float) -> str:
    return f"{size / MB:.1f} MB" if size >= MB else f"{size / KB:.1f} KB"


# --- connections ---


@contextlib.contextmanager
def _served(start: Start) -> Iterator[tuple[int, int]]:
    place = TCP.place("memory")
    assert place.port is not None
    server = serve(start(place), place.port)
    try:
        yield place.port, server.pid
    finally:
        server.close()


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _ask(peer: socket.socket) -> None:
    """Send one request, and read its answer."""
    peer.sendall(_frame({"pattern": SUM, "data": [1, 2, 3], "id": "1"}))
    answer = b""
    while not answer.endswith(b"}"):
        answer += peer.recv(KB) or _missing(answer)


def _missing(answer: bytes) -> bytes:
    message = f"The server hung up after {answer!r}."
    raise ConnectionError(message)


def _frame(packet: object) -> bytes:
    body = json.dumps(packet)
    return f"{len(body)}#{body}".encode()


def _open_files() -> int:
    """Raise the limit of open files, for us and the servers we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
