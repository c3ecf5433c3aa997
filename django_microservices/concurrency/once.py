"""A value that is made once, whichever thread or task asks first."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Generic, TypeVar

from .portal import portal

T = TypeVar("T")

# Seconds: a task that waited for a thread's lock would stop its loop.
_POLL = 0.005


class Once(Generic[T]):
    """Keeps what ``make()`` returned, or what that was awaited to; ``take`` reads it.

    Both are called once; after an error whoever asks next tries again.
    """

    def __init__(
        self, make: Callable[[], Any], take: Callable[[Any], T] = lambda made: made
    ) -> None:
        self._make = make
        self._take = take
        self._lock = threading.Lock()
        self._is_made = False
        self._value: T

    def get(self) -> T:
        """Return the value, for a sync caller."""
        with self._lock:
            if not self._is_made:
                made = self._make()
                self._keep(portal.run(_awaited, made) if isawaitable(made) else made)
            return self._value

    async def aget(self) -> T:
        """Return the value, for an async caller."""
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 - threads hold it
            await asyncio.sleep(_POLL)
        try:
            if not self._is_made:
                made = self._make()
                self._keep(await made if isawaitable(made) else made)
            return self._value
        finally:
            self._lock.release()

    def _keep(self, made: Any) -> None:
        self._value = self._take(made)
        self._is_made = True


async def _awaited(made: Awaitable[Any]) -> Any:
    return await made
