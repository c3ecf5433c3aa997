"""Clients of a running server, servers of a peer, and the end of what they leave."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_microservices import Client, message_pattern
from django_microservices.concurrency.portal import portal

from . import answers
from .ends import FakeListener, calling_sync, running, server_of, serving_elsewhere
from .peer import Gate, Peer, Start

Ports = Callable[[], int]


@pytest.fixture(scope="module", autouse=True)
def _portal_ends() -> Iterator[None]:
    """Stop the portal that sync callers used, so that no thread of it is left."""
    yield
    portal.stop()


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    answers.begin_anew()


@pytest.fixture
def port(free_port: Ports) -> int:
    """Give a port."""
    return free_port()


@pytest.fixture
def served(port: int) -> Iterator[int]:
    """Serve on another thread's loop; give the port."""
    with serving_elsewhere(port, *answers.HANDLERS):
        yield port


@pytest.fixture
def client(served: int) -> Iterator[Client]:
    """Give a client for sync callers."""
    with calling_sync(served) as client:
        yield client


@pytest.fixture
def database(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Allow the database, without a transaction around the test."""
    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Give a function that starts a server of handlers of the pattern "it"."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            function: Any, *, kind: Any = message_pattern, threads: int = 4, **more: Any
        ) -> Peer:
            options = more.pop("options", {})
            handler = kind("it", **options)(function)
            server = server_of(FakeListener(), handler, **more)
            await stack.enter_async_context(running(server, threads=threads))
            return Peer(server)

        yield start


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give one that is open in the end."""
    gate = Gate()
    yield gate
    gate.go_on.set()
