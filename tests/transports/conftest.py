"""Every asynchronous test of this folder runs on asyncio's loop and on uvloop's."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from django_microservices.transports import tls
from django_microservices.wire.messages import new_id
from tests.brokers.nats import NATS

from .authorities import HOST, Authority
from .jetstream_ends import Place
from .peers import Serve, Serving


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def serve(free_port: Callable[[], int]) -> Serve:
    """Return a function that serves the TCP wire, as an async context manager."""

    def serve(*args: object, **options: object) -> Serving:
        return Serving(free_port(), *args, **options)  # type: ignore[arg-type]

    return serve


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    """A port for a server."""
    return free_port()


@pytest.fixture
def root() -> str:
    """Give a level of topics that no other test has."""
    return new_id()


@pytest.fixture
def place(nats_server: NATS) -> Place:
    """Give a stream that nobody else uses."""
    return Place(nats_server.url)


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the TLS contexts of clients that were built.

    Building takes long, and holds up the loop at each attempt to connect.
    """
    built: list[Any] = []
    build = tls.client_context

    def keep(*args: Any) -> Any:
        built.append(build(*args))
        return built[-1]

    monkeypatch.setattr(tls, "client_context", keep)
    return built


# --- certificates ---


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The authority that both ends trust."""
    return Authority()


@pytest.fixture(scope="session")
def other() -> Authority:
    """An authority that nobody trusts."""
    return Authority()


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> dict[str, Any]:
    """A server's options."""
    return authority.issue(HOST, "localhost")


@pytest.fixture(scope="session")
def client_tls(authority: Authority) -> dict[str, Any]:
    """A client's options."""
    return {"ca": authority.text}


@pytest.fixture(scope="session")
def ada(authority: Authority) -> dict[str, Any]:
    """A client's options, with a certificate of its own."""
    name = "ada.example"
    return {"ca": authority.text, **authority.issue(name, common_name="ada")}
