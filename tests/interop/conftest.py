"""Fixtures: real Nest peers and our own service, each started once a run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.brokers.fixtures import give_up
from tests.brokers.process import ServerUnavailableError

from .harness import NEST, NEST_11, NestClient, NestServer
from .ours import LARGE, OurServer

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


@pytest.fixture
def start_nest_client() -> Iterator[Callable[[], NestClient]]:
    """Return a function that starts Nest clients, which the test may end."""
    with ExitStack() as stack:
        yield lambda: _started(stack, NestClient, NEST)


@pytest.fixture(scope="session")
def nest_11_client() -> Iterator[NestClient]:
    """Clients of the Nest before."""
    with ExitStack() as stack:
        yield _started(stack, NestClient, NEST_11)


@pytest.fixture(scope="session", params=[NEST, NEST_11], ids=["nest12", "nest11"])
def either_nest_client(request: pytest.FixtureRequest) -> Iterator[NestClient]:
    """Clients of the Nest of now, then of the one before."""
    with ExitStack() as stack:
        yield _started(stack, NestClient, request.param)


@pytest.fixture(scope="session", params=[NEST, NEST_11], ids=["nest12", "nest11"])
def either_nest_server(request: pytest.FixtureRequest) -> Iterator[NestServer]:
    """A service of the Nest of now, then of the one before."""
    with ExitStack() as stack:
        yield _started(stack, NestServer, request.param)


@pytest.fixture(scope="session")
def our_server(certificates: dict[str, str]) -> Iterator[OurServer]:
    """Our service: with defaults, for large messages, with TLS and with mutual TLS."""
    tls = {"key": certificates["server_key"], "cert": certificates["server_cert"]}
    server = OurServer(
        default={},
        large={"OPTIONS": {"max_frame_size": LARGE}, "CONCURRENCY": 250},
        tls={"OPTIONS": {"tls_options": tls}},
        mutual={"OPTIONS": {"tls_options": {**tls, "ca": certificates["ca"]}}},
    )
    yield server
    server.close()


@pytest.fixture
def private_server() -> Iterator[OurServer]:
    """Our service, which the test may end."""
    server = OurServer()
    yield server
    server.close()


def _started(stack: ExitStack, kind: type[Peer], package: Path, **options: Any) -> Peer:
    try:
        peer = kind(package, **options)
    except ServerUnavailableError as error:
        give_up(str(error))
    stack.callback(peer.close)
    return peer
