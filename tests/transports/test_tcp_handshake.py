"""Whom a TCP server lets in under TLS."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from django_microservices.exceptions import NotConnected
from django_microservices.transports.tcp import (
    handshake,
)
from django_microservices.transports.tls import (
    client_context,
)

from .authorities import HOST, Authority, ask, old_context, survives
from .peers import Serve, eventually


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Take a refused handshake's log, and see that none of it is a traceback."""
    yield
    for record in caplog.get_records("call"):
        assert record.exc_info is None or record.name == "asyncio"


async def test_old_client(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """A client that speaks TLS 1.0 and 1.1 only is refused."""
    async with serve(tls_options=server_tls) as server:
        context = old_context(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.peer(ssl=context, server_hostname=HOST)
        await survives(server, client_tls)


@pytest.mark.usefixtures("quiet")
async def test_plain_text_to_a_tls_server(
    serve: Serve, server_tls: Any, client_tls: Any
) -> None:
    """Plain text is no greeting: it is cut, and nothing of it is read."""
    async with serve(tls_options=server_tls) as server:
        peer = await server.peer()
        peer.request()
        await peer.ended()
        async with server.link() as calls:
            calls.send("a")
            await asyncio.wait_for(calls.link.closed, 10)
        await survives(server, client_tls)


async def test_no_greeting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, server_tls: Any, client_tls: Any
) -> None:
    """Who does not greet in time is cut."""
    monkeypatch.setattr(handshake, "SECONDS", 0.05)
    async with serve(tls_options=server_tls) as server:
        peer = await server.peer()
        assert await peer.ended() == b""


async def test_min_version(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """A server may ask for more."""
    newer = {**server_tls, "min_version": "TLSv1.3"}
    older = client_context(client_tls)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serve(tls_options=newer) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.peer(ssl=older, server_hostname=HOST)
        await survives(server, client_tls)


# --- what the log tells ---


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Return what the handshakes left in the log."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.endswith("tcp.handshake") and record.levelno >= level
    ]


@pytest.mark.parametrize(
    ("says", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST"), (b"17#{not a secret}", "")],
)
async def test_failure_is_logged(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    server_tls: Any,
    says: bytes,
    reason: str,
) -> None:
    """Who cannot agree with us is named in one line, with the reason."""
    async with serve(tls_options=server_tls) as server:
        peer = await server.peer()
        peer.writer.write(says)
        await peer.ended()
        await eventually(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert line.startswith(f"No TLS with {peer.address}: ")
    assert reason in line


async def test_unknown_client_is_logged(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    server_tls: Any,
    client_tls: Any,
    other: Authority,
) -> None:
    """So is one whose certificate nobody here issued."""
    mallory: Any = {**client_tls, **other.issue("ada.example")}
    async with serve(tls_options={**server_tls, **client_tls}) as server:
        with contextlib.suppress(NotConnected):
            async with server.link(tls_options=mallory) as calls:
                await asyncio.wait_for(calls.link.closed, 10)
        await eventually(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert line.endswith(": unable to get local issuer certificate.")


async def test_late_client_is_logged(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    server_tls: Any,
) -> None:
    """So is one that takes too long."""
    monkeypatch.setattr(handshake, "SECONDS", 0.05)
    async with serve(tls_options=server_tls) as server:
        peer = await server.peer()
        await peer.ended()
        await eventually(lambda: lines(caplog))
    assert "handshake is taking longer than 0.05 seconds" in lines(caplog)[0]


async def test_probe_is_no_warning(
    serve: Serve, caplog: pytest.LogCaptureFixture, server_tls: Any
) -> None:
    """Who only looks whether the port is open is no reason to worry."""
    caplog.set_level(logging.INFO)
    async with serve(tls_options=server_tls) as server:
        peer = await server.peer()
        peer.writer.close()
        await eventually(lambda: lines(caplog, logging.INFO))
    assert lines(caplog) == []


# --- how many ---


@pytest.mark.parametrize("option", ["max_connections", "max_connections_per_address"])
async def test_handshakes_are_counted(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    server_tls: Any,
    client_tls: Any,
    option: str,
) -> None:
    """Who has not yet agreed on TLS takes a place, and gives it back."""
    async with serve(tls_options=server_tls, **{option: 1}) as server:
        silent = await server.peer()
        await eventually(lambda: server.intake.handshakes)
        with pytest.raises(NotConnected):
            await ask(server, **client_tls)
        assert f": more than {option}=1." in caplog.text
        silent.close()
        await eventually(lambda: not server.intake.admitted)
        await ask(server, **client_tls)
        await eventually(lambda: not server.intake.admitted)
    assert not server.intake.per_address


async def test_agreed_connection_takes_one_place(
    serve: Serve, server_tls: Any, client_tls: Any
) -> None:
    """A connection is counted once, from its beginning to its end."""
    async with serve(tls_options=server_tls, max_connections=1) as server:
        async with server.link(tls_options=client_tls) as calls:
            calls.send("a")
            await calls.came(1)
            assert (server.intake.admitted, server.intake.handshakes) == (1, set())
        await eventually(lambda: not server.intake.admitted)


async def test_end_amid_handshakes(serve: Serve, server_tls: Any) -> None:
    """A server that ends waits for no greeting."""
    async with serve(tls_options=server_tls) as server:
        peers = [await server.peer() for _ in range(3)]
        await eventually(lambda: len(server.intake.handshakes) == 3)
    assert server.intake.handshakes == set()
    assert server.intake.admitted == 0
    for peer in peers:
        assert await peer.ended() == b""


async def test_end_before_a_handshake(serve: Serve, server_tls: Any) -> None:
    """Nor does it leave a socket of one that had not begun."""
    async with serve(tls_options=server_tls) as server:
        ours, theirs = socket.socketpair()
        transport = RawTransport(theirs)
        protocol = server.intake.accept()
        protocol.connection_made(transport)
        for task in server.intake.handshakes:
            task.cancel()
        await eventually(lambda: not server.intake.handshakes)
        assert server.intake.admitted == 0
        theirs.close()
        assert ours.recv(1) == b""
        ours.close()


async def test_no_descriptor_left(
    serve: Serve, caplog: pytest.LogCaptureFixture, server_tls: Any
) -> None:
    """Where the process can open nothing more, the place is given back."""
    async with serve(tls_options=server_tls) as server:
        transport = RawTransport(Scarce())
        server.intake.accept().connection_made(transport)
        assert transport.aborted
        assert (server.intake.admitted, server.intake.handshakes) == (0, set())
    assert not server.intake.per_address
    (line,) = lines(caplog)
    assert line == "No TLS with 10.0.0.1:5: [Errno 24] Too many open files."


class Scarce:
    """A socket of a process that has too many."""

    def dup(self) -> socket.socket:
        """Fail."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class RawTransport(asyncio.Transport):
    """What a listener has just accepted."""

    def __init__(self, sock: Any) -> None:
        super().__init__({"socket": sock, "peername": ("10.0.0.1", 5)})
        self.aborted = False

    def abort(self) -> None:
        """Close."""
        self.aborted = True
