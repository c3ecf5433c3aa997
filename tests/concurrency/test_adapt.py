"""The bridges between sync and async code."""

import threading
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from django.db import connections
from django.utils import translation

from django_microservices.concurrency.adapt import to_async, to_async_apart, to_sync


def test_sync_code_calls_async_code() -> None:
    """A coroutine function is called from sync code, with its arguments."""

    async def add(first: int, *, second: int) -> int:
        return first + second

    assert to_sync(add)(1, second=2) == 3


def test_error_comes_through() -> None:
    """An error arrives as it was raised."""

    async def fail() -> None:
        raise LookupError("missing")

    with pytest.raises(LookupError, match="missing"):
        to_sync(fail)()


async def test_async_code_calls_sync_code() -> None:
    """A function is called from the loop, on another thread."""
    assert await to_async(threading.get_ident)() != threading.get_ident()


async def test_error_of_sync_code() -> None:
    """An error of the function arrives on the loop."""
    with pytest.raises(ZeroDivisionError):
        await to_async(divmod)(1, 0)


async def test_context_travels() -> None:
    """The language of the caller is that of the function."""
    with translation.override("de"):
        assert await to_async(translation.get_language)() == "de"


def test_thread_is_the_callers() -> None:
    """Sync code beneath async code beneath sync code runs where it all began."""

    async def beneath() -> int:
        ident: int = await to_async(threading.get_ident)()
        return ident

    assert to_sync(beneath)() == threading.get_ident()


async def test_thread_apart() -> None:
    """What may take long has a thread of its own, which then is gone."""
    shared = await to_async(threading.current_thread)()
    own: threading.Thread = await to_async_apart(threading.current_thread)()
    assert own not in {shared, threading.current_thread()}
    own.join(10)
    assert not own.is_alive()


async def test_thread_of_a_request() -> None:
    """Inside a request of ASGI it is the request's, which may be in a transaction."""
    async with ThreadSensitiveContext():
        ident: int = await to_async(threading.get_ident)()
        assert await to_async_apart(threading.get_ident)() == ident


def test_thread_apart_is_the_callers() -> None:
    """Beneath sync code it is that one's, as ever."""

    async def beneath() -> int:
        ident: int = await to_async_apart(threading.get_ident)()
        return ident

    assert to_sync(beneath)() == threading.get_ident()


async def test_connections_of_a_thread_apart(postgres_alias: str) -> None:
    """What it opened of a database is closed with it."""

    def ask() -> Any:
        connections[postgres_alias].ensure_connection()
        return connections[postgres_alias]

    opened = await to_async_apart(ask)()
    assert opened.connection is None
