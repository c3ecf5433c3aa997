"""Where sync code stands around async code."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)
from django.db import connections

from .portal import is_throwaway


def to_sync(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Let sync code on a thread of the pool call ``function`` on the loop.

    An error is handed over as a value: raised through ``async_to_sync``, whose frames
    then hold it in a cycle, it would keep the thread of a loop until it is collected.
    """

    async def outcome(*args: Any, **kwargs: Any) -> tuple[Any, Exception | None]:
        try:
            return await function(*args, **kwargs), None
        except Exception as error:  # noqa: BLE001 - the caller gets it
            return None, error

    def call(*args: Any, **kwargs: Any) -> Any:
        value, error = async_to_sync(outcome)(*args, **kwargs)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error

    return call


def to_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Let async code call ``function`` where Django runs thread-sensitive code.

    An error is handed over beside ``sync_to_async``, for the reason that
    :func:`to_sync` has; not as a value even, which its frames would hold.
    """

    async def call(*args: Any, **kwargs: Any) -> Any:
        errors: list[Exception] = []

        def run() -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the caller gets it
                errors.append(error)

        value = await sync_to_async(run, thread_sensitive=True)()
        if errors:
            raise errors.pop()
        return value

    return call


def to_async_apart(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Let async code call what may take long, and hold up nobody meanwhile.

    Where Django would use the one thread that all share, it has one of its own. Inside
    a request of ASGI, or of ``async_to_sync``, it is that one's, which may be in a
    transaction.
    """
    shared, alone = to_async(function), to_async(_closing(function))

    async def call(*args: Any, **kwargs: Any) -> Any:
        given = SyncToAsync.thread_sensitive_context.get(None)
        if given is not None or is_throwaway(asyncio.get_running_loop()):
            return await shared(*args, **kwargs)
        async with ThreadSensitiveContext():
            return await alone(*args, **kwargs)

    return call


def _closing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Close what the thread that ends with the call opened."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return call
