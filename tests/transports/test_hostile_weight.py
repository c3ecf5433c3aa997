"""What peers that mean harm cost in memory: rows 39, 41, 42 and 48."""

import contextlib
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Figures
from tests.interop.process import LineChild

from .hostile import (
    KB,
    MB,
)
from .peers import SOON

# --- 41, 42: much announced, much sent ---


class Weighed:
    """A server in a process of its own."""

    def __init__(self, port: int, options: dict[str, Any]) -> None:
        self.port = port
        self.child = LineChild(
            [
                *(sys.executable, "-m", f"{__package__}.hostile_server"),
                *(str(port), json.dumps(options)),
            ],
            cwd=Path(__file__).resolve().parents[2],
            environment={
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "PYTHONASYNCIODEBUG": "",
            },
        )

    def status(self, name: str) -> int:
        """Return a figure of the kernel's, in bytes."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * KB

    def growth(self) -> Callable[[], int]:
        """Return a function that says by how much memory has grown at most."""
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")  # resets the peak
        before = self.status("VmRSS")
        return lambda: self.status("VmHWM") - before

    def connect(self) -> socket.socket:
        """Connect a peer."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SOON)

    def ask(self, peer: socket.socket) -> None:
        """Have one request answered."""
        request = b'{"pattern":"echo","data":1,"id":"1"}'
        peer.sendall(b"%d#%b" % (len(request), request))
        assert peer.recv(KB).endswith(b'"id":"1"}')


@pytest.fixture
def weigh(port: int) -> Iterator[Callable[..., Weighed]]:
    """Return a function that starts a server whose memory is weighed."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Weighed:
            weighed = Weighed(port, options)
            stack.callback(weighed.child.close)
            return weighed

        yield start


def pour(peer: socket.socket, first: bytes, then: bytes, most: int) -> float:
    """Write until we are cut; return the seconds that it took."""
    begun = time.monotonic()
    peer.setblocking(False)
    sent, rest = 0, first + then
    try:
        while sent < most:
            _, writable, _ = select.select([], [peer], [], SOON)
            assert writable, "The server neither reads nor cuts."
            written = peer.send(rest)
            sent += written
            rest = rest[written:] or then
    except ConnectionError:
        return time.monotonic() - begun
    pytest.fail(f"{sent} bytes were taken.")


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"999999999#", b"x" * 64 * KB), (b"", b"1" * 64 * KB)],
    ids=["announced", "endless"],
)
def test_too_much(
    weigh: Callable[..., Weighed], first: bytes, then: bytes, figure: Figures
) -> None:
    """999999999 announced, or 128 MB without '#': cut at once, for less than 1 MB."""
    server = weigh()
    with server.connect() as honest, server.connect() as peer:
        server.ask(honest)
        server.ask(peer)
        grown = server.growth()
        figure("41, 42: too much is cut", pour(peer, first, then, 128 * MB), 0.01)
        server.ask(honest)
        figure("41, 42: memory for too much", grown() / MB, 1, "MB")
        assert grown() < MB


# --- 39: answers that are never read ---


def test_answers_never_read(weigh: Callable[..., Weighed], figure: Figures) -> None:
    """A reader that never reads costs at most twice the cap, and nobody else waits."""
    cap = 8 * MB
    server = weigh(max_send_buffer_size=cap)
    request = json.dumps({"pattern": "echo", "data": "x" * 60_000, "id": "1"}).encode()
    frame = b"%d#%b" % (len(request), request)
    with server.connect() as honest, server.connect() as peer:
        server.ask(honest)
        server.ask(peer)
        grown = server.growth()
        peer.setblocking(False)
        stuck = False
        rest = frame
        while not stuck:
            try:
                written = peer.send(rest)
            except BlockingIOError:
                stuck = not select.select([], [peer], [], 0.3)[1]
            except ConnectionError:
                break
            else:
                rest = rest[written:] or frame
            server.ask(honest)
        figure("39: memory for a reader that never reads", grown() / cap, 2, "caps")
        assert grown() < 2 * cap


# --- 48: many connections ---


def open_peers(server: Weighed, count: int, stack: contextlib.ExitStack) -> None:
    """Connect so many, and see that all were accepted."""
    for _ in range(count):
        last = stack.enter_context(server.connect())
    server.ask(last)


MANY = {"max_connections": 10_000, "max_connections_per_address": 10_000}


def test_idle_connections_are_cheap(
    weigh: Callable[..., Weighed], figure: Figures
) -> None:
    """An idle plain connection costs at most 10 KB."""
    server = weigh(**MANY)
    with contextlib.ExitStack() as stack:
        open_peers(server, 50, stack)
        before = server.status("VmRSS")
        open_peers(server, 400, stack)
        each = (server.status("VmRSS") - before) / 400
        figure("48: an idle connection", each / KB, 10, "KB")
        assert each < 10 * KB


def test_idle_tls_connections_are_cheap(
    weigh: Callable[..., Weighed], tmp_path: Path, figure: Figures
) -> None:
    """An idle TLS connection costs at most 30 KB."""
    leaf = trustme.CA().issue_cert("127.0.0.1")
    tls = {"key": str(tmp_path / "key.pem"), "cert": str(tmp_path / "cert.pem")}
    leaf.private_key_pem.write_to_path(tls["key"])
    leaf.cert_chain_pems[0].write_to_path(tls["cert"])
    server = weigh(**MANY, tls_options=tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:

        def connect(count: int) -> int:
            for _ in range(count):
                raw = server.connect()
                peer = stack.enter_context(context.wrap_socket(raw))
                server.ask(peer)  # the handshake is over, on both sides
            return server.status("VmRSS")

        before = connect(30)
        each = (connect(200) - before) / 200
        figure("48: an idle TLS connection", each / KB, 30, "KB")
        assert each < 30 * KB
