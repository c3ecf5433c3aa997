"""TLS on the TCP wire: what travels, and whom a client trusts."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_microservices.exceptions import NotConnected
from django_microservices.transports.tls import (
    client_context,
    server_context,
)
from django_microservices.wire.messages import Reply

from .authorities import HOST, YESTERDAY, Authority, ask, old_context, written
from .packets import hold
from .peers import Serve, Service, linked


async def test_request(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """Messages travel over TLS as without, and the address says so."""
    async with serve(tls_options=server_tls) as server:
        reply = await ask(server, **client_tls)
        assert bytes(reply.data or b"") == b"[1]"
        assert server.intake.address == f"tls://{HOST}:{server.port}"
        assert server.service.deliveries[0].message.wire.identity is None


async def test_files(
    serve: Serve, tmp_path: Path, server_tls: Any, client_tls: Any
) -> None:
    """Each part may be a file's path."""
    paths = {}
    for name, text in {**server_tls, **client_tls}.items():
        paths[name] = written(tmp_path / f"{name}.pem", text)
    own = {"cert": paths["cert"], "key": paths["key"]}
    async with serve(tls_options=own) as server:
        await ask(server, ca=paths["ca"])
        await ask(server, ca=[paths["ca"], client_tls["ca"]])


def test_texts_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_tls: Any
) -> None:
    """A key that is given as text does not stay on the disk."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server_context(server_tls)
    assert list(tmp_path.iterdir()) == []


async def test_large_answers(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """Many large answers at once arrive whole."""
    data = b'"' + b"x" * 100_000 + b'"'
    service = Service(lambda delivery: delivery.answer(data))
    async with (
        serve(service, tls_options=server_tls) as server,
        server.link(tls_options=client_tls) as calls,
    ):
        for number in range(50):
            calls.send("a", id_=str(number))
        await calls.came(50)
        assert {len(reply.data or b"") for reply in map(_plain, calls)} == {len(data)}


def _plain(reply: Reply) -> Reply:
    return Reply(reply.id, bytes(reply.data or b""))


async def test_end_of_a_server(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """What was answered before the end arrives, and the client is told of the end."""
    async with (
        serve(Service(hold), tls_options=server_tls) as server,
        server.link(tls_options=client_tls) as calls,
    ):
        calls.send("a")
        (delivery,) = await server.service.came(1)
        delivery.answer()
        await asyncio.wait_for(server.intake.close(), 10)
        await calls.came(1)
        await asyncio.wait_for(calls.link.closed, 10)


async def test_end_of_a_client(serve: Serve, server_tls: Any, client_tls: Any) -> None:
    """Under TLS there is no half: a client that ends is gone, and cancels."""
    async with serve(Service(hold), tls_options=server_tls) as server:
        context = client_context(client_tls)
        peer = await server.peer(ssl=context, server_hostname=HOST)
        peer.request()
        (delivery,) = await server.service.came(1)
        peer.writer.close()
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


# --- whom a client trusts ---


async def refused(server: Any, **tls: Any) -> str:
    """Try to connect, and return the error."""
    with pytest.raises(NotConnected) as caught:
        await ask(server, **tls)
    assert server.service.deliveries == []
    return str(caught.value)


async def test_wrong_authority(serve: Serve, server_tls: Any, other: Authority) -> None:
    """A certificate of an authority that we do not trust is refused."""
    async with serve(tls_options=server_tls) as server:
        error = await refused(server, ca=other.text)
        assert f"{HOST}:{server.port} refused by TLS: unable to get" in error


async def test_expired(serve: Serve, authority: Authority, client_tls: Any) -> None:
    """So is one that has expired."""
    expired = authority.issue(HOST, not_after=YESTERDAY)
    async with serve(tls_options=expired) as server:
        assert "certificate has expired" in await refused(server, **client_tls)


async def test_wrong_host(serve: Serve, authority: Authority, client_tls: Any) -> None:
    """So is one of another host."""
    async with serve(tls_options=authority.issue("else.example")) as server:
        assert "IP address mismatch" in await refused(server, **client_tls)


async def test_server_name(serve: Serve, authority: Authority, client_tls: Any) -> None:
    """Which name the certificate must have can be told."""
    async with serve(tls_options=authority.issue("else.example")) as server:
        await ask(server, server_name="else.example", **client_tls)
        async with server.link(
            tls_options={**client_tls, "server_name": "else.example"}
        ) as calls:
            assert calls.link.driver.get_extra_info("peercert")


async def test_self_signed(serve: Serve, server_tls: Any) -> None:
    """With no authority told, the system's decide, and they know none of ours."""
    async with serve(tls_options=server_tls) as server:
        assert "unable to get local issuer" in await refused(server)


async def test_verify_nothing(serve: Serve, server_tls: Any) -> None:
    """``reject_unauthorized`` False takes whoever is there."""
    async with serve(tls_options=server_tls) as server:
        await ask(server, reject_unauthorized=False)


async def test_old_server(
    free_port: Callable[[], int], tmp_path: Path, server_tls: Any, client_tls: Any
) -> None:
    """A server that speaks TLS 1.0 and 1.1 only is refused."""
    context = old_context(ssl.PROTOCOL_TLS_SERVER)
    for name, text in server_tls.items():
        written(tmp_path / name, text)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    port = free_port()
    server = await asyncio.start_server(lambda *_: None, HOST, port, ssl=context)
    async with server:
        with pytest.raises(NotConnected, match=rf"{HOST}:{port}:? \w+"):
            await linked(port, tls_options=client_tls).__aenter__()


async def test_tls_to_a_plain_server(
    serve: Serve, client_tls: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no way back to plain text, and the server's log names the mistake."""
    async with serve() as server:
        error = await refused(server, **client_tls)
        assert f"{HOST}:{server.port}" in error
    assert "looks like TLS on a plain port" in caplog.text
