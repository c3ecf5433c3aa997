"""Mutual TLS on the TCP wire: who it was."""

import asyncio
import ssl
from typing import Any

import pytest

from django_microservices.exceptions import NotConnected
from django_microservices.transports.tcp import (
    PeerIdentity,
)
from django_microservices.transports.tls import (
    client_context,
    identity,
)

from .authorities import HOST, Authority, ask, survives
from .peers import Serve, eventually


async def test_identity(
    serve: Serve, server_tls: Any, client_tls: Any, ada: Any
) -> None:
    """The handler knows whom the client's certificate names, also when it has gone."""
    async with serve(tls_options={**server_tls, **client_tls}) as server:
        await ask(server, **ada)
        wire = server.service.deliveries[0].message.wire
        await eventually(lambda: not server.intake.connections)
        assert wire.identity == PeerIdentity("ada", ("ada.example",))
        assert wire.peer.startswith(f"{HOST}:")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_certificate(
    serve: Serve, server_tls: Any, client_tls: Any, ada: Any, version: ssl.TLSVersion
) -> None:
    """A client without a certificate is refused before any frame is read."""
    context = client_context(client_tls)
    context.maximum_version = version
    async with serve(tls_options={**server_tls, **client_tls}) as server:
        try:
            peer = await server.peer(ssl=context, server_hostname=HOST)
        except (ssl.SSLError, ConnectionError):
            pass  # TLS 1.2 tells while greeting, 1.3 afterwards
        else:
            peer.request()
            try:
                assert await peer.ended() == b""
            except ssl.SSLError as error:
                assert "CERTIFICATE_REQUIRED" in str(error)  # noqa: PT017
        await survives(server, ada)


async def test_our_client_without_a_certificate(
    serve: Serve, server_tls: Any, client_tls: Any
) -> None:
    """Our client is told at once, whatever it had asked already."""
    async with serve(tls_options={**server_tls, **client_tls}) as server:
        try:
            async with server.link(tls_options=client_tls) as calls:
                calls.send("a")
                reason = str(await asyncio.wait_for(calls.link.closed, 10))
        except NotConnected as error:
            reason = str(error)
        assert reason
        assert server.service.deliveries == []


async def test_certificate_of_a_stranger(
    serve: Serve, server_tls: Any, client_tls: Any, other: Authority
) -> None:
    """A certificate that our authority did not issue is refused as well."""
    mallory = {**client_tls, **other.issue("ada.example", common_name="ada")}
    async with serve(tls_options={**server_tls, **client_tls}) as server:
        try:
            async with server.link(tls_options=mallory) as calls:
                calls.send("a")
                await asyncio.wait_for(calls.link.closed, 10)
        except NotConnected:
            pass  # TLS 1.2 would tell here
        assert server.service.deliveries == []


async def test_certificate_by_choice(
    serve: Serve, server_tls: Any, client_tls: Any, ada: Any
) -> None:
    """A server may ask for a certificate and take who has none, but not a false one."""
    options = {**server_tls, **client_tls, "reject_unauthorized": False}
    async with serve(tls_options=options) as server:
        await ask(server, **client_tls)
        await ask(server, **ada)
        first, second = (d.message.wire.identity for d in server.service.deliveries)
        assert first is None
        assert second == PeerIdentity("ada", ("ada.example",))


async def test_authority_without_asking(
    serve: Serve, server_tls: Any, client_tls: Any
) -> None:
    """``request_cert`` False asks nobody."""
    options = {**server_tls, **client_tls, "request_cert": False}
    async with serve(tls_options=options) as server:
        await ask(server, **client_tls)


class FakeTransport:
    """A transport with a certificate."""

    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self.certificate = certificate

    def get_extra_info(self, name: str) -> Any:
        """Give it."""
        return self.certificate


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (None, None),
        ({}, None),
        (
            {
                "subject": ((("organizationName", "o"),), (("commonName", "a"),)),
                "subjectAltName": (("DNS", "a.b"), ("URI", "spiffe://a/b")),
            },
            PeerIdentity("a", ("a.b", "spiffe://a/b")),
        ),
        ({"subject": ()}, PeerIdentity("", ())),
    ],
)
def test_identity_of_a_certificate(certificate: Any, expected: Any) -> None:
    """Common name and alternative names, each where the certificate has it."""
    transport: Any = FakeTransport(certificate)
    assert identity(transport) == expected
