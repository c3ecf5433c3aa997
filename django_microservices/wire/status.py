"""The status of a client or server: a value now and a stream of changes."""

import asyncio
import enum
from collections.abc import AsyncIterator, Callable
from typing import Any


class Status(enum.StrEnum):
    """What an end can say of its connection; the words are Nest's."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    REBALANCING = "rebalancing"
    DRAINING = "draining"
    CLOSED = "closed"


class StatusStream:
    """Compares equal to its value, and iterates (``async for``) over the changes.

    Iterating gives the present value first; repeats are dropped, and a slow reader
    sees the latest value rather than every one.
    """

    def __init__(self) -> None:
        self.value = Status.DISCONNECTED
        self._waiting: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[Status], Any]] = []

    def change(self, value: Status) -> None:
        """Set the value, on the loop of those who iterate."""
        if value is self.value:
            return
        self.value = value
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
        for listener in tuple(self._listeners):
            listener(value)

    def listen(self, callback: Callable[[Status], Any]) -> None:
        """Call ``callback(status)`` at each change."""
        self._listeners.append(callback)

    async def __aiter__(self) -> AsyncIterator[Status]:
        """Yield the value now and after every change."""
        seen: Status | None = None
        while True:
            if seen is not self.value:
                seen = self.value
                yield seen
                continue
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StatusStream):
            return self is other
        return self.value == other

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"<Status {self.value}>"
