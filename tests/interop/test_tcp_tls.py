"""Nest and we call each other over TLS, and show each other certificates."""

from typing import Any

import pytest

from django_microservices import ConnectionLost, NotConnected

from .callers import Connect
from .harness import NestClient, NestServer, StartNest
from .ours import OurServer

TCP = "django_microservices.transports.TCPTransport"


# --- we call Nest -----------------------------------------------------------------


@pytest.fixture(scope="session")
def secure_server(
    start_nest_server: StartNest, certificates: dict[str, str]
) -> NestServer:
    """Start a Nest service that wants to know who calls."""
    tls = {
        "key": certificates["server_key"],
        "cert": certificates["server_cert"],
        "ca": certificates["ca"],
        "requestCert": True,
    }
    return start_nest_server(tlsOptions=tls)


@pytest.fixture
def trust(certificates: dict[str, str]) -> dict[str, str]:
    """Give the options of a client that shows its certificate."""
    return {
        "key": certificates["client_key"],
        "cert": certificates["client_cert"],
        "ca": certificates["ca"],
    }


async def test_nest_knows_us_by_our_certificate(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """Over mutual TLS Nest sees the name in our certificate."""
    caller = connect(TCP, port=secure_server.port, tls_options=trust)
    assert await caller.send("peer", 1) == "orders"
    assert await caller.send("echo", "👍") == "👍"


async def test_stream_over_tls(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """A stream's own connection is as secure."""
    caller = connect(TCP, port=secure_server.port, tls_options=trust)
    data = {"kind": "interval", "n": 3, "ms": 5}
    assert await caller.take(10, "stream", data) == [0, 1, 2]


async def test_untrusted_certificate_of_nest_is_refused(
    connect: Connect, secure_server: NestServer
) -> None:
    """A server of an authority that we do not know is not called."""
    caller = connect(TCP, port=secure_server.port, tls_options={})
    with pytest.raises(NotConnected, match=r"self.signed certificate|unable to get"):
        await caller.send("echo", 1)


async def test_nest_wants_our_certificate(
    connect: Connect, secure_server: NestServer, trust: dict[str, str]
) -> None:
    """Without one of our own Nest hangs up, and the call says so."""
    caller = connect(TCP, port=secure_server.port, tls_options={"ca": trust["ca"]})
    with pytest.raises((ConnectionLost, NotConnected)):
        await caller.send("echo", 1)


# --- Nest calls us ----------------------------------------------------------------


async def test_we_answer_over_tls(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """A Nest client that trusts our authority is answered."""
    tls = {"ca": certificates["ca"]}
    client = _over_tls(our_server.ports["tls"], tls)
    assert (await nest_client.send(client, "echo", "👍")).value == "👍"


async def test_our_untrusted_certificate_is_refused(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A Nest client that does not know our authority is not answered."""
    client = _over_tls(our_server.ports["tls"], {})
    answer = await nest_client.send(client, "echo", 1)
    assert answer.error["message"] == "Connection closed"


async def test_we_know_nest_by_its_certificate(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """The name in the caller's certificate is on the context."""
    tls = {
        "key": certificates["client_key"],
        "cert": certificates["client_cert"],
        "ca": certificates["ca"],
    }
    client = _over_tls(our_server.ports["mutual"], tls)
    assert (await nest_client.send(client, "peer", 1)).value == "orders"


async def test_we_want_the_certificate_of_nest(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """A Nest client without one is not answered."""
    client = _over_tls(our_server.ports["mutual"], {"ca": certificates["ca"]})
    answer = await nest_client.send(client, "echo", 1)
    assert answer.error["message"] == "Connection closed"


def _over_tls(port: int, tls: dict[str, str]) -> dict[str, Any]:
    return {"host": "localhost", "port": port, "tlsOptions": tls}
