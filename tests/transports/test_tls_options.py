"""What ``tls_options`` may say, and when it is read."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from django_microservices.exceptions import TransportRefused
from django_microservices.transports.tcp import TCPTransport
from django_microservices.transports.tls import (
    ClientContext,
    client_context,
    server_context,
)

from .authorities import HOST, Authority, ask, written
from .peers import Serve, Service


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
        (
            {"cert": "no/such/file.pem"},
            r"\['cert'\] \(no/such/file.pem\) and \['key'\] cannot",
        ),
        ({"key": "-----BEGIN x"}, r"\['cert'\] and \['key'\] cannot be used"),
        ({"ca": "no/such/file.pem"}, r"\['ca'\] \(no/such/file.pem\) cannot"),
        ({"ca": "-----BEGIN x"}, r"\['ca'\] cannot be used"),
        ({"key": "/run/tls_key"}, r"\['cert'\] and \['key'\] \(/run/tls_key\) cannot"),
        ({"request_cert": True}, r"\['request_cert'\] needs 'ca'"),
        ({"min_version": "TLSv1.1"}, r"\['min_version'\]: 'TLSv1.1' is none of"),
    ],
)
def test_wrong_options(server_tls: Any, changed: Any, says: str) -> None:
    """What cannot work is refused for good, and the option is named."""
    options = cast("Any", {**server_tls, **changed})
    with pytest.raises(TransportRefused, match=rf"^tls_options{says}"):
        server_context(options)
    with pytest.raises(TransportRefused, match=rf"^tls{says}"):
        server_context(options, "tls")


@pytest.mark.parametrize(
    "secret",
    [
        "MC4CAQAwBQYDK2VwBCIEIHh5eg",
        "/MC4CAQAw\nBQYDK2Vw",
        "-----BEGIN A KEY-----\n/b.c",
    ],
)
@pytest.mark.parametrize("name", ["cert", "key", "ca"])
def test_contents_are_never_told(server_tls: Any, name: str, secret: str) -> None:
    """Nor is what may be a key that was pasted without its first line."""
    with pytest.raises(TransportRefused) as caught:
        server_context(cast("Any", {**server_tls, name: secret}))
    assert secret not in str(caught.value)
    assert "(/" not in str(caught.value)


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


# --- a client's context ---


def test_context_is_built_once(client_tls: Any) -> None:
    """Connecting again reads no certificate again."""
    own = ClientContext(client_tls)
    assert own.current() is own.current()


@pytest.mark.parametrize("changed", ["cert", "key", "ca"])
def test_context_of_changed_files(
    tmp_path: Path, client_tls: Any, ada: Any, authority: Authority, changed: str
) -> None:
    """When a file has changed, the next connection uses what it says now."""
    paths: Any = {
        name: written(tmp_path / name, text)
        for name, text in {**client_tls, **ada}.items()
    }
    options: Any = {**paths, "ca": [paths["ca"], authority.text]}
    own = ClientContext(options)
    before = own.current()
    text = Path(paths[changed]).read_text()
    Path(paths[changed]).write_text(text + "\n")
    after = own.current()
    assert after is not before
    assert own.current() is after


def test_context_of_a_file_that_is_gone(tmp_path: Path, client_tls: Any) -> None:
    """A file that is gone is an error, and when it is back all is well."""
    path = tmp_path / "ca.pem"
    path.write_text(client_tls["ca"])
    own = ClientContext({"ca": str(path)})
    own.current()
    path.unlink()
    with pytest.raises(TransportRefused, match=r"\['ca'\] .*ca.pem\) cannot"):
        own.current()
    path.write_text(client_tls["ca"])
    own.current()


async def test_connections_share_a_context(
    serve: Serve, contexts: list[Any], server_tls: Any, client_tls: Any
) -> None:
    """However often a client connects, its authorities are read once."""
    async with serve(tls_options=server_tls) as server:
        transport = TCPTransport(port=server.port, tls_options=client_tls)
        for _ in range(3):
            async with transport.connect(print, print):
                pass
    assert len(contexts) == 1
