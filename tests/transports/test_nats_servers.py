"""How one connects to a server of NATS: which of them, over TLS, and why not."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices import NotConnected, TransportRefused
from django_microservices.transports.nats import NATSTransport
from tests.brokers.broker import BrokerProcess
from tests.brokers.nats import NATS, NATSProcess

from .nats_scripts import FakeServer

Ports = Callable[[], int]
StartServer = Callable[..., NATS]
Certificates = dict[str, str]


async def connect(**options: Any) -> str:
    """Connect and leave; return the address of the server that answered."""
    async with NATSTransport(**options).servers.connected() as connection:
        assert await connection.ping()
        return connection.address


# --- which server -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "host", "port"),
    [
        ("nats://nats", "nats", None),
        ("tls://user:secret@nats:4333", "nats", 4333),
        ("nats:4333", "nats", 4333),
        ("nats", "nats", None),
        ("nats://[::1]:4333", "::1", 4333),
    ],
)
def test_spelling_of_a_server(server: str, host: str, port: int | None) -> None:
    """A server is a URL, or what stands in one."""
    found = NATSTransport(url=server).servers.servers[0]
    assert (found.hostname, found.port) == (host, port)


@pytest.mark.parametrize(
    "server",
    ["", "nats://", "ws://user:secret@nats", "http://nats", "nats://nats:port"],
)
def test_server_that_is_none(server: str) -> None:
    """What cannot be a server is refused, and its user is not shown."""
    with pytest.raises(ImproperlyConfigured, match="servers: ") as caught:
        NATSTransport(servers=["nats://nats", server])
    assert "secret" not in str(caught.value)


async def test_servers_are_tried_in_order(free_port: Ports) -> None:
    """With ``no_randomize`` the first that answers is taken."""
    async with FakeServer(free_port()) as one, FakeServer(free_port()) as two:
        nobody = f"nats://127.0.0.1:{free_port()}"
        for _ in range(5):
            options: dict[str, Any] = {"servers": [nobody, two.url, one.url]}
            address = await connect(no_randomize=True, **options)
            assert address == f"127.0.0.1:{two.port}"


async def test_servers_are_tried_in_any_order(free_port: Ports) -> None:
    """Otherwise clients spread over the cluster."""
    async with FakeServer(free_port()) as one, FakeServer(free_port()) as two:
        found = {await connect(servers=[one.url, two.url]) for _ in range(50)}
    assert len(found) == 2


@pytest.mark.parametrize("ignores", [False, True])
async def test_servers_that_a_cluster_names(
    free_port: Ports,
    ignores: bool,  # noqa: FBT001
) -> None:
    """They are tried when the one that named them is gone, with the same user."""
    async with FakeServer(free_port()) as other:
        named = [f"127.0.0.1:{other.port}", "[::1]:1", "", 7, "host:port"]
        async with FakeServer(free_port(), info={"connect_urls": named}) as first:
            url = f"nats://user:secret@127.0.0.1:{first.port}"
            servers = NATSTransport(url=url, ignore_cluster_updates=ignores).servers
            async with servers.connected():
                pass
        if ignores:
            with pytest.raises(NotConnected):
                await servers.connected().__aenter__()
            return
        async with servers.connected() as connection:
            assert connection.address == f"127.0.0.1:{other.port}"
        assert other.introduction["user"] == "user"


async def test_no_server_answers(free_port: Ports) -> None:
    """The error says what became of each of them."""
    urls = [f"nats://user:secret@127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(NotConnected) as caught:
        await connect(servers=urls)
    assert str(caught.value).count("refused") == 2
    assert "secret" not in str(caught.value)


async def test_host_that_is_not_known() -> None:
    """A name that nobody knows is an error that may pass."""
    with pytest.raises(NotConnected, match=r"nobody\.invalid:4222: "):
        await connect(url="nats://nobody.invalid")


async def test_server_that_says_nothing(free_port: Ports) -> None:
    """A server that accepts and is mute is given up in time."""
    async with FakeServer(free_port(), info=None) as mute:
        with pytest.raises(NotConnected, match="did not answer in time"):
            await connect(url=mute.url, connect_timeout=0.1)


@pytest.mark.parametrize(
    "text", ["Authorization Violation", "User Authentication Expired"]
)
async def test_credentials_are_refused(free_port: Ports, text: str) -> None:
    """No retry mends that."""
    async with FakeServer(free_port(), refusal=text) as server:
        with pytest.raises(TransportRefused, match=text):
            await connect(url=server.url)


async def test_server_is_full(free_port: Ports) -> None:
    """Any other refusal may pass."""
    async with FakeServer(free_port(), refusal="Maximum Connections Exceeded") as full:
        with pytest.raises(NotConnected, match="Maximum Connections"):
            await connect(url=full.url)


async def test_server_hangs_up_at_once(free_port: Ports) -> None:
    """So may a server that does not even say who it is."""
    async with FakeServer(free_port(), info=None) as server:
        server.hangs_up = True
        with pytest.raises(NotConnected):
            await connect(url=server.url)


async def test_server_of_another_age(free_port: Ports) -> None:
    """A server without headers cannot carry what we say."""
    async with FakeServer(free_port(), info={"headers": False}) as old:
        with pytest.raises(TransportRefused, match=r"before 2\.2"):
            await connect(url=old.url)


async def test_what_a_client_says_of_itself(free_port: Ports) -> None:
    """CONNECT has the name, what we can, and what ``driver_options`` add."""
    async with FakeServer(free_port()) as server:
        await connect(
            url=server.url,
            group="orders",
            no_echo=True,
            driver_options={"pedantic": True},
        )
        said = server.introduction
    assert said["name"] == "orders"
    assert said["headers"] is said["no_responders"] is said["pedantic"] is True
    assert said["echo"] is False


# --- TLS --------------------------------------------------------------------------


class First(NATSProcess):
    """A server that says nothing before TLS."""

    dial = BrokerProcess.dial

    def _security(self) -> dict[str, Any]:
        options = super()._security()
        options["tls"]["handshake_first"] = True
        return options


class TLSFirst(NATS):
    """The same."""

    kind = First


def port_of(server: NATS) -> int:
    """Return its port."""
    return server.ours.port


async def test_files_of_tls_are_read_once(
    start_server: StartServer,
    certificates: Certificates,
    contexts: list[Any],
) -> None:
    """However often one connects."""
    url = f"tls://127.0.0.1:{port_of(start_server(NATS, tls=certificates))}"
    servers = NATSTransport(url=url, tls={"ca": certificates["ca"]}).servers
    for _ in range(2):
        async with servers.connected():
            pass
    assert len(contexts) == 1


async def test_tls(start_server: StartServer, certificates: Certificates) -> None:
    """The server's certificate is verified, whether its URL says TLS or the option."""
    server = start_server(NATS, tls=certificates)
    port = port_of(server)
    for scheme in ("nats", "tls"):
        url = f"{scheme}://127.0.0.1:{port}"
        await connect(url=url, tls={"ca": certificates["ca"]})
        with pytest.raises(NotConnected, match="refused by TLS"):
            await connect(url=url)
    url = f"tls://127.0.0.1:{port}"
    with pytest.raises(NotConnected, match="refused by TLS"):
        await connect(url=url, tls={"ca": certificates["ca"], "server_name": "other"})


async def test_mutual_tls(
    start_server: StartServer, certificates: Certificates
) -> None:
    """A server may want a certificate of its clients."""
    server = start_server(NATS, tls=certificates, mutual=True)
    tls = {
        "ca": certificates["ca"],
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
    }
    await connect(url=server.url, tls=tls)
    with pytest.raises(NotConnected):
        await connect(url=server.url, tls={"ca": certificates["ca"]})


async def test_tls_before_all_else(
    start_server: StartServer, certificates: Certificates
) -> None:
    """With ``handshake_first`` nothing is said in the clear."""
    server = start_server(TLSFirst, tls=certificates)
    tls = {"ca": certificates["ca"], "handshake_first": True}
    await connect(url=server.url, tls=tls)


async def test_tls_is_never_given_up(
    free_port: Ports, certificates: Certificates
) -> None:
    """A server without TLS, or somebody between, cannot talk us out of it."""
    async with FakeServer(free_port()) as plain:
        for options in (
            {"url": plain.url, "tls": {"ca": certificates["ca"]}},
            {"url": re.sub("nats:", "tls:", plain.url)},
        ):
            with pytest.raises(NotConnected, match="has no TLS"):
                await connect(**options)
        assert b"CONNECT" not in plain.heard


async def test_tls_file_that_cannot_be_read(free_port: Ports) -> None:
    """No retry mends that."""
    with pytest.raises(TransportRefused):
        await connect(url="tls://127.0.0.1", tls={"ca": "/nowhere.pem"})


async def test_connection_lost_in_the_handshake(
    free_port: Ports, certificates: Certificates
) -> None:
    """A server that ends while TLS begins is an error that may pass."""
    async with FakeServer(free_port(), info={"tls_required": True}) as server:
        server.hangs_up = True
        with pytest.raises(NotConnected):
            await connect(url=server.url, tls={"ca": certificates["ca"]})
