"""Fixtures: a real Nest service, and real Nest clients, each started once a run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from tests.brokers.fixtures import give_up
from tests.brokers.process import ServerUnavailableError

from .harness import NEST, NEST_11, NestClient, NestServer

Peer = TypeVar("Peer", NestServer, NestClient)


@pytest.fixture(scope="session")
def start_nest_server() -> Iterator[Callable[..., NestServer]]:
    """Return a function that starts a Nest service with options of its own."""
    with ExitStack() as stack:

        def start(package: Path = NEST, **options: Any) -> NestServer:
            return _started(stack, NestServer, package, **options)

        yield start


@pytest.fixture(scope="session")
def nest_server(start_nest_server: Callable[..., NestServer]) -> NestServer:
    """A Nest service with Nest's own defaults."""
    return start_nest_server()


@pytest.fixture(scope="session")
def nest_client() -> Iterator[NestClient]:
    """Nest clients."""
    with ExitStack() as stack:
        yield _started(stack, NestClient, NEST)


@pytest.fixture(scope="session")
def nest_11_client() -> Iterator[NestClient]:
    """Clients of the Nest before."""
    with ExitStack() as stack:
        yield _started(stack, NestClient, NEST_11)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of PEM files: ``ca``, and key and cert of a server and of a client.

    The server is `localhost` and 127.0.0.1, the client is `orders`.
    """
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "client": authority.issue_cert("orders", common_name="orders"),
    }
    paths = {"ca": str(folder / "ca.pem")}
    authority.cert_pem.write_to_path(paths["ca"])
    for name, leaf in issued.items():
        key, cert = str(folder / f"{name}.key"), str(folder / f"{name}.pem")
        leaf.private_key_pem.write_to_path(key)
        leaf.cert_chain_pems[0].write_to_path(cert)
        paths |= {f"{name}_key": key, f"{name}_cert": cert}
    return paths


def _started(stack: ExitStack, kind: type[Peer], package: Path, **options: Any) -> Peer:
    try:
        peer = kind(package, **options)
    except ServerUnavailableError as error:
        give_up(str(error))
    stack.callback(peer.close)
    return peer
