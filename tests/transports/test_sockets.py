"""What is asked of the sockets themselves."""

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from django_microservices import message_pattern
from django_microservices.transports import sockets
from tests.endpoints.ends import serving_elsewhere
from tests.endpoints.scripts import run_script

from .peers import Serve


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("/run/socket", "/run/socket"),
        (None, "?"),
    ],
)
def test_address_text(name: Any, text: str) -> None:
    """Addresses are written as people do."""
    assert sockets.address_text(name) == text


class FakeSocket:
    """A socket that says what it is told."""

    def __init__(self, family: int = socket.AF_INET, **info: int) -> None:
        self.family = family
        self.info = info
        self.options: list[tuple[int, ...]] = []

    def setsockopt(self, *option: int) -> None:
        """Remember."""
        self.options.append(option)

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        """Give Linux's struct tcp_info, as far as it goes."""
        data = bytearray(size)
        data[2] = self.info.get("retransmits", 0)
        data[24:28] = self.info.get("unacked", 0).to_bytes(4, "little")
        data[56:60] = self.info.get("unheard", 0).to_bytes(4, "little")
        return bytes(data)


def test_options_of_what_is_no_tcp_socket() -> None:
    """What is no TCP socket is left alone."""
    other = FakeSocket(socket.AF_UNIX)
    sockets.set_options(other, no_delay=True)
    sockets.set_options(None, no_delay=True)
    assert other.options == []
    assert not sockets.has_vanished(other)


def test_options_that_a_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that does not exist here is not set."""
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    monkeypatch.delattr(socket, "TCP_INFO")
    one = FakeSocket()
    sockets.set_options(one, no_delay=True)
    assert len(one.options) == 4
    assert not sockets.has_vanished(one)


@pytest.mark.parametrize(("seconds", "told"), [(0, []), (0.2, [1]), (7.6, [8])])
def test_keep_alive(seconds: float, told: list[int]) -> None:
    """Sockets know whole seconds; none is no keep-alive."""
    one = FakeSocket()
    sockets.set_options(one, no_delay=True, keep_alive=seconds)
    idle = [value for _, name, value in one.options if name == socket.TCP_KEEPIDLE]
    assert idle == told
    assert ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in one.options) == bool(told)


@pytest.mark.parametrize(
    ("info", "vanished"),
    [
        ({"retransmits": 5, "unacked": 2, "unheard": 7000}, True),
        ({"retransmits": 5, "unacked": 2, "unheard": 100}, False),
        ({"retransmits": 0, "unacked": 2, "unheard": 7000}, False),
        ({"retransmits": 5, "unacked": 0, "unheard": 7000}, False),
    ],
)
def test_vanished(info: dict[str, int], vanished: bool) -> None:  # noqa: FBT001
    """A host has vanished that owes an answer and was not heard for six seconds."""
    assert sockets.has_vanished(FakeSocket(**info)) is vanished


async def test_live_host_has_not_vanished(serve: Serve) -> None:
    """What the kernel tells of a live connection is understood."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        sock = calls.link.transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
        assert int.from_bytes(info[56:60], "little") < sockets.UNHEARD
        assert not sockets.has_vanished(sock)


@message_pattern("acount")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers."""
    for number in range(data):
        yield number


def test_sockets_after_a_late_patch(free_port: Callable[[], int]) -> None:
    """What uvloop closes is closed once, also if gevent has patched in between.

    So it is with ``gunicorn --preload -k gevent``: else another file's number is
    closed, that took the place of a connection's.
    """
    port = free_port()
    with serving_elsewhere(port, acount):
        printed = run_script(
            port,
            """
            import gevent.monkey
            gevent.monkey.patch_all()
            import gevent, socket
            files = {}
            def open_some():
                files.update((n, os.fstat(n)) for _ in range(4) for n in os.pipe())
            close = socket.socket.close
            def close_late(self):
                open_some()  # another thread does so, between the two
                close(self)
            socket.socket.close = close_late
            client = create_client(port=port)
            def stream():
                for _ in range(5):
                    assert list(client.stream("acount", 2)) == [0, 1]
                    open_some()
            streams = [gevent.spawn(stream) for _ in range(4)]
            gevent.joinall(streams, raise_error=True)
            client.close()
            print(all(os.path.samestat(os.fstat(n), files[n]) for n in files))
            """,
            before="import uvloop",
        )
    assert printed == "True\n"
