"""What the fault tests leave behind is ended."""

import random
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from django_microservices.concurrency.portal import portal
from django_microservices.endpoints import backoff
from django_microservices.endpoints.client import Client
from django_microservices.runtime import microservice as microservice_module
from tests.endpoints.ends import calling, serving

from .calls import cancelled, echo, hang
from .proxy import Proxy

# They assert for the tests, and are to show what they compared.
pytest.register_assert_rewrite("tests.faults.bench", "tests.faults.scenarios")


@pytest.fixture(scope="module", autouse=True)
def _portal_ends() -> Iterator[None]:
    """Stop the portal that sync callers used, so that no thread of it is left."""
    yield
    portal.stop()


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again at once."""
    monkeypatch.setattr(backoff, "BASE", 0.0)
    monkeypatch.setattr(random, "uniform", lambda least, most: 0.0)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads that hang be noticed soon."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(microservice_module, "STUCK_AFTER", 0.1)


@pytest_asyncio.fixture
async def proxy(free_port: Callable[[], int]) -> AsyncIterator[Proxy]:
    """Give a proxy to a server of ours."""
    cancelled.clear()
    target = free_port()
    async with (
        serving(target, echo, hang, concurrency=2000),
        Proxy(free_port(), target) as proxy,
    ):
        yield proxy


@pytest_asyncio.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """Give a client behind it."""
    async with calling(proxy.port) as client:
        yield client
