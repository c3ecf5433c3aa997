"""Fixtures: real Nest peers and our own service, each started once a run."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from django_microservices import create_client
from tests.brokers.fixtures import give_up
from tests.brokers.process import ServerUnavailableError

from .callers import Caller, Connect, SyncCaller
from .harness import NEST, NEST_11, NestClient, NestServer, StartNest
from .ours import LARGE, OurServer
from .wires import Way

pytest.register_assert_rewrite(
    f"{__package__}.nest_calls_us", f"{__package__}.we_call_nest"
)

Peer = TypeVar("Peer", NestServer, NestClient)


@pytest.fixture(scope="session")
def start_nest_server() -> Iterator[StartNest]:
    """Return a function that starts a Nest service with options of its own."""
    with ExitStack() as stack:

        def start(package: Path = NEST, **options: Any) -> NestServer:
            return _started(stack, NestServer, package, **options)

        yield start


@pytest.fixture(scope="session")
def nest_server(start_nest_server: StartNest) -> NestServer:
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


@pytest.fixture(params=[Caller, SyncCaller], ids=["async", "sync"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Return a function that makes clients of ours, which end with the test."""
    async with AsyncExitStack() as stack:

        def make(transport: Any, **options: Any) -> Caller:
            caller: Caller = request.param(create_client(transport, **options))
            stack.push_async_callback(caller.close)
            return caller

        yield make


@pytest.fixture
def large_nest(nest: Caller) -> Caller:
    """Give the wire's usual client, where that takes 5 MB."""
    return nest


@pytest.fixture
def large_us(us: Way) -> Way:
    """Give the usual way to our service, where that takes 5 MB and 200 calls."""
    return us


def _started(stack: ExitStack, kind: type[Peer], package: Path, **options: Any) -> Peer:
    try:
        peer = kind(package, **options)
    except ServerUnavailableError as error:
        give_up(str(error))
    stack.callback(peer.close)
    return peer
