"""Pools of threads, portals, and interrupts."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from django_microservices.concurrency import portal as portal_module
from django_microservices.concurrency.portal import Portal
from django_microservices.concurrency.threads import Threads

from .work import PATIENCE, CountingLoop, Hold


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[Threads]:
    """Give a pool of two."""
    pool = Threads(2, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


@pytest_asyncio.fixture
async def single() -> AsyncIterator[Threads]:
    """Give a pool of one, so that jobs follow each other on the same thread."""
    pool = Threads(1, asyncio.get_running_loop())
    yield pool
    assert pool.stop(PATIENCE)


@pytest_asyncio.fixture
async def wake_ups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what is noted each time that a thread wakes the test's loop."""
    loop = asyncio.get_running_loop()
    wake_ups = []
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    return wake_ups


@pytest.fixture
def hold() -> Hold:
    """Give a function that holds its thread."""
    return Hold()


@pytest.fixture
def interrupted() -> Iterator[threading.Event]:
    """Have the first SIGINT interrupt, and set this event, and the others do nothing.

    Python overlooks one that comes just before a thread blocks: it is to be repeated.
    """
    event = threading.Event()

    def interrupt(*_: object) -> None:
        if not event.is_set():
            event.set()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield event
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def portal() -> Iterator[Portal]:
    """Make a portal of the test's own, and end the process's, which others used."""
    portal_module.portal.stop()
    portal = Portal()
    yield portal
    portal.stop()


@pytest.fixture
def loop() -> Iterator[CountingLoop]:
    """Make a loop that does not run."""
    loop = CountingLoop()
    yield loop
    loop.close()
