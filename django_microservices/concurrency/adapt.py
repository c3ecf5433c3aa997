"""Where sync code stands around async code."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async


def to_sync(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Let sync code on a thread of the pool call ``function`` on the loop."""
    return async_to_sync(function)


def to_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Let async code call ``function`` where Django runs thread-sensitive code."""
    result: Callable[..., Awaitable[Any]] = sync_to_async(
        function, thread_sensitive=True
    )
    return result
