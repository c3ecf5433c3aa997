"""TLS on the TCP wire: who is let in, who is not, and who it was."""

import asyncio
import datetime
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from django_microservices.exceptions import NotConnected, TransportRefused
from django_microservices.transports.tcp import PeerIdentity, TCPTransport, handshake
from django_microservices.transports.tcp.tls import (
    client_context,
    identity,
    server_context,
)
from django_microservices.wire.messages import Reply

from .peers import Delivery, Serve, Service, eventually, linked

HOST = "127.0.0.1"
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


class Authority:
    """A certificate authority made for one run."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.text = self.ca.cert_pem.bytes().decode()

    def issue(self, *names: str, **more: Any) -> dict[str, str]:
        """Issue a certificate: the options that present it."""
        leaf = self.ca.issue_cert(*names, **more)
        return {
            "cert": leaf.cert_chain_pems[0].bytes().decode(),
            "key": leaf.private_key_pem.bytes().decode(),
        }


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority that both ends trust."""
    return Authority()


@pytest.fixture(scope="module")
def other() -> Authority:
    """An authority that nobody trusts."""
    return Authority()


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> dict[str, Any]:
    """A server's options."""
    return authority.issue(HOST, "localhost")


@pytest.fixture(scope="module")
def client_tls(authority: Authority) -> dict[str, Any]:
    """A client's options."""
    return {"ca": authority.text}


@pytest.fixture(scope="module")
def ada(authority: Authority) -> dict[str, Any]:
    """A client's options, with a certificate of its own."""
    name = "ada.example"
    return {"ca": authority.text, **authority.issue(name, common_name="ada")}


async def ask(server: Any, **tls: Any) -> Reply:
    """Send one request over TLS, and return the answer."""
    async with server.link(tls_options=tls) as calls:
        calls.send("a", b"[1]")
        reply: Reply = (await calls.came(1))[0]
        return reply


# --- it works ---


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


def written(path: Path, text: str) -> str:
    """Write a file."""
    path.write_text(text)
    return str(path)


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
    hold: Callable[[Delivery], None] = lambda _: None  # noqa: E731
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
    hold: Callable[[Delivery], None] = lambda _: None  # noqa: E731
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


def old_context(protocol: int) -> ssl.SSLContext:
    """Make a context that knows nothing newer than TLS 1.1."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


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


# --- whom a server lets in ---


async def survives(server: Any, tls: dict[str, Any]) -> None:
    """See that the server still serves, and that nothing else has come."""
    assert server.service.deliveries == []
    await ask(server, **tls)


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


# --- mutual TLS ---


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


# --- options that cannot work ---


@pytest.fixture(scope="module")
def locked(server_tls: dict[str, str]) -> dict[str, str]:
    """A server's options with a key that is encrypted."""
    key = load_pem_private_key(server_tls["key"].encode(), None)
    text = key.private_bytes(
        Encoding.PEM,
        PrivateFormat.TraditionalOpenSSL,
        BestAvailableEncryption(b"s3cret"),
    )
    return {**server_tls, "key": text.decode()}


async def test_passphrase(serve: Serve, locked: Any, client_tls: Any) -> None:
    """A passphrase opens the key."""
    async with serve(tls_options={**locked, "passphrase": "s3cret"}) as server:
        await ask(server, **client_tls)


@pytest.mark.parametrize("passphrase", [{}, {"passphrase": "other"}])
def test_wrong_passphrase(locked: Any, passphrase: dict[str, str]) -> None:
    """Without the right one nothing is asked of the terminal, and nothing is told."""
    with pytest.raises(TransportRefused, match="'cert'") as caught:
        server_context(cast("Any", {**locked, **passphrase}))
    assert "other" not in str(caught.value)


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_server_without_a_certificate(server_tls: Any, missing: str) -> None:
    """A server needs both parts."""
    options = {name: text for name, text in server_tls.items() if name != missing}
    with pytest.raises(TransportRefused, match="a server needs 'cert' and 'key'"):
        server_context(cast("Any", options))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"cert": "no/such/file.pem"}, r"\['cert'\] and \['key'\] cannot be used"),
        ({"key": "-----BEGIN x"}, r"\['cert'\] and \['key'\] cannot be used"),
        ({"ca": "no/such/file.pem"}, r"\['ca'\] cannot be used"),
        ({"ca": "-----BEGIN x"}, r"\['ca'\] cannot be used"),
        ({"request_cert": True}, r"\['request_cert'\] needs 'ca'"),
        ({"min_version": "TLSv1.1"}, r"\['min_version'\]: 'TLSv1.1' is none of"),
    ],
)
def test_wrong_options(server_tls: Any, changed: Any, says: str) -> None:
    """What cannot work is refused for good, and the option is named."""
    with pytest.raises(TransportRefused, match=rf"tls_options{says}"):
        server_context(cast("Any", {**server_tls, **changed}))


def test_certificate_and_key_in_one(server_tls: Any) -> None:
    """A client's certificate may bring its key along."""
    client_context({"cert": server_tls["key"] + server_tls["cert"]})


async def test_refused_at_the_start(free_port: Callable[[], int]) -> None:
    """Such options end the start, before any port is taken."""
    port = free_port()
    options: Any = {"cert": "no/such/file.pem", "key": "no/such/file.pem"}
    block = TCPTransport(port=port, tls_options=options)
    with pytest.raises(TransportRefused):
        await block.serve([], Service(), print, limit=1).__aenter__()
    socket.create_server((HOST, port)).close()
