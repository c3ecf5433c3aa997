"""The options of the TCP wire, and what becomes of them at the socket."""

import asyncio
import errno
import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any, Self

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.exceptions import (
    NotConnected,
    TransportRefused,
)
from django_microservices.transports import TCPTransport, sockets

from .peers import Serve, Service, linked


def test_defaults_are_loopback() -> None:
    """Nobody outside is served unless the settings say so."""
    transport = TCPTransport()
    assert (transport.host, transport.port) == ("127.0.0.1", 3000)
    assert (transport.max_frame_size, transport.no_delay) == (1024 * 1024, True)


@pytest.mark.parametrize(
    ("url", "address"),
    [("tcp://math:3000", ("math", 3000)), ("tcp://[::1]:42", ("::1", 42))],
)
def test_url(url: str, address: tuple[str, int]) -> None:
    """A URL stands for host and port."""
    transport = TCPTransport(url=url)
    assert (transport.host, transport.port) == address


@pytest.mark.parametrize(
    "url",
    ["http://a:1", "tcp://a", "tcp://:1", "a:1", "", "tcp://a:99999", "tcp://a:x"],
)
def test_wrong_url(url: str) -> None:
    """Any other URL is an error that shows the form."""
    with pytest.raises(ImproperlyConfigured, match=r"url: .*tcp://host:port"):
        TCPTransport(url=url)


def test_wrong_url_keeps_its_secret() -> None:
    """What stands in front of the host is not shown."""
    with pytest.raises(ImproperlyConfigured) as caught:
        TCPTransport(url="http://user:s3cret@a:1")
    assert "s3cret" not in str(caught.value)


def test_listener_is_opened_again_as_told() -> None:
    """How often and when is for the Server to read."""
    transport = TCPTransport(retry_attempts=3, retry_delay=0.5)
    assert (transport.retry_attempts, transport.retry_delay) == (3, 0.5)


async def test_address(serve: Serve) -> None:
    """A server says where it listens, and then that it does not."""
    async with serve() as server:
        intake = server.intake
        assert intake.address == f"tcp://127.0.0.1:{server.port}"
        assert intake.driver.sockets
    assert intake.address == "closed"
    assert intake.closed.result() is None


async def test_taken_port(serve: Serve) -> None:
    """A port that is taken will not become free by trying again."""
    async with serve() as server:
        other = TCPTransport(port=server.port)
        with pytest.raises(TransportRefused, match=f"127.0.0.1:{server.port}"):
            await other.serve([], Service(), print, limit=1).__aenter__()


async def test_unknown_host() -> None:
    """Nor will a name that nobody knows."""
    transport = TCPTransport(host="no-such-host.invalid")
    with pytest.raises(TransportRefused, match="no-such-host"):
        await transport.serve([], Service(), print, limit=1).__aenter__()


class _NoLoop:
    """An intake, and its loop, which can open no more files."""

    accept = listener = None

    @property
    def loop(self) -> Self:
        """Be that as well."""
        return self

    async def create_server(self, *args: Any, **options: Any) -> None:
        """Fail."""
        raise OSError(errno.EMFILE, "Too many open files")


async def test_listening_fails_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error is one that may pass."""
    module = "django_microservices.transports.tcp.intake"
    monkeypatch.setattr(f"{module}.Intake", lambda *_: _NoLoop())
    with pytest.raises(NotConnected, match="Too many open files"):
        await TCPTransport().serve([], Service(), print, limit=1).__aenter__()


@pytest.mark.parametrize("no_delay", [True, False])
async def test_no_delay(serve: Serve, no_delay: bool) -> None:  # noqa: FBT001
    """NODELAY is set on both ends, or on none."""
    async with (
        serve(no_delay=no_delay) as server,
        server.link(no_delay=no_delay) as calls,
    ):
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        for end in (theirs, calls.link):
            sock = end.transport.get_extra_info("socket")
            option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert bool(option) is no_delay
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_closed_window_is_no_fault(serve: Serve) -> None:
    """A peer that reads slowly, yet lives, is not ended by the kernel."""
    async with serve() as server, server.link() as calls:
        sock = calls.link.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_backlog(serve: Serve) -> None:
    """The kernel keeps so many connections that were not accepted yet."""
    async with serve(backlog=17) as server:
        (sock,) = server.intake.driver.sockets
        # Of a listening socket Linux tells the backlog as tcpi_sacked.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
        assert int.from_bytes(info[28:32], "little") == 17


async def test_refused_connection(free_port: Callable[[], int]) -> None:
    """Where nobody listens, the error names the address."""
    port = free_port()
    with pytest.raises(NotConnected, match=f"127.0.0.1:{port}: .*refused"):
        await linked(port).__aenter__()


async def test_connect_timeout(free_port: Callable[[], int]) -> None:
    """Connecting takes so long at most, TLS's greeting included."""
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        port = silent.getsockname()[1]
        options: Any = {"connect_timeout": 0.01, "tls_options": {}}
        with pytest.raises(NotConnected, match=f"127.0.0.1:{port} did not answer"):
            await linked(port, **options).__aenter__()


# --- names and addresses ---


@pytest.mark.parametrize("seconds", [0.0001, 5.0])
async def test_host_that_does_not_resolve(
    caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """An unknown name is an error; one found too late is not another in the log."""
    transport = TCPTransport(host="no-such-host.invalid", connect_timeout=seconds)
    with pytest.raises(NotConnected, match="no-such-host"):
        await transport.connect(print, print).__aenter__()
    loop = asyncio.get_running_loop()
    with pytest.raises(socket.gaierror):  # in line behind the other
        await loop.getaddrinfo("no-such-host.invalid", 1)
    gc.collect()
    assert caplog.records == []


class Names:
    """The running loop, but for a name that stands for this host's ports."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.create_connection: Any = asyncio.get_running_loop().create_connection

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> Any:
        """Look the name up."""
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        return [(*kind, ("127.0.0.1", number)) for number in self.ports]


class Named(asyncio.Protocol):
    """Keeps whom it was connected to, and leaves."""

    def __init__(self) -> None:
        self.port = 0
        self.left = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep that."""
        self.port = transport.get_extra_info("peername")[1]
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is over."""
        self.left.set()


async def test_next_address(free_port: Callable[[], int]) -> None:
    """Of several addresses the first that takes us is taken."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port, named = listener.getsockname()[1], Named()
        loop: Any = Names(free_port(), port)
        await sockets.connect(loop, named, "several", 1)
        await asyncio.wait_for(named.left.wait(), 10)
        assert named.port == port


async def test_no_address(free_port: Callable[[], int]) -> None:
    """Where none takes us, the last error is told."""
    loop: Any = Names(free_port(), free_port())
    with pytest.raises(ConnectionRefusedError):
        await sockets.connect(loop, Named(), "several", 1)
    loop.ports = ()
    with pytest.raises(OSError, match="no address of several"):
        await sockets.connect(loop, Named(), "several", 1)


async def test_tls_refusal_is_no_reason_to_go_on() -> None:
    """Who refuses us by TLS is there: no other address is tried."""
    loop: Any = Names(1, 2)
    asked: list[int] = []

    async def create_connection(_: Any, host: str, port: int, **__: Any) -> None:
        asked.append(port)
        raise ssl.SSLError

    loop.create_connection = create_connection
    with pytest.raises(ssl.SSLError):
        await sockets.connect(loop, Named(), "several", 1)
    assert asked == [1]


async def test_link_local_address() -> None:
    """An address that counts on one link only is asked for on that link."""
    loop: Any = Names()
    asked: list[str] = []

    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        kind = (socket.AF_INET6, socket.SOCK_STREAM, 0, "")
        return [(*kind, ("fe80::1", 1, 0, scope)) for scope in (0, 2)]

    async def create_connection(_: Any, host: str, *__: Any, **___: Any) -> None:
        asked.append(host)
        raise ConnectionRefusedError

    loop.getaddrinfo, loop.create_connection = getaddrinfo, create_connection
    with pytest.raises(ConnectionRefusedError):
        await sockets.connect(loop, Named(), "several", 1)
    assert asked == ["fe80::1", "fe80::1%2"]
