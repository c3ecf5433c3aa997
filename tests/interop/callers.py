"""Our client by its async verbs, and by its sync ones, as one object for the tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django_microservices import Client, Status


class Caller:
    """A client by its async verbs."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def connect(self) -> None:
        """Connect: a call that waits for that says that less time is left."""
        await self.client.aconnect()

    async def send(self, *args: Any, **more: Any) -> Any:
        """Send a request."""
        return await self.client.asend(*args, **more)

    async def emit(self, *args: Any, **more: Any) -> None:
        """Emit an event."""
        await self.client.aemit(*args, **more)

    async def take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        """Take the first items of a stream, and leave it."""
        items = self.client.astream(*args, **more)
        taken = [item async for item, _ in _zip(items, range(count))]
        await items.aclose()
        return taken

    async def status(self) -> Status:
        """Say how the connection is."""
        return self.client.status.value

    async def close(self) -> None:
        """Close the connection."""
        await self.client.aclose()


class SyncCaller(Caller):
    """A client by its sync verbs, each on a thread of its own."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.threads = ThreadPoolExecutor(200)

    async def connect(self) -> None:
        """Connect: a call that waits for that says that less time is left."""
        await self._run(self.client.connect)

    async def send(self, *args: Any, **more: Any) -> Any:
        """Send a request."""
        return await self._run(lambda: self.client.send(*args, **more))

    async def emit(self, *args: Any, **more: Any) -> None:
        """Emit an event."""
        await self._run(lambda: self.client.emit(*args, **more))

    async def take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        """Take the first items of a stream, and leave it."""
        taken: list[Any] = await self._run(lambda: self._take(count, *args, **more))
        return taken

    def _take(self, count: int, *args: Any, **more: Any) -> list[Any]:
        items: Any = self.client.stream(*args, **more)
        taken = [item for _, item in zip(range(count), items, strict=False)]
        items.close()
        return taken

    async def status(self) -> Status:
        """Say how the connection is."""
        status: Status = await self._run(lambda: self.client.status.value)
        return status

    async def close(self) -> None:
        """Close the connection, and let the threads end."""
        await self._run(self.client.close)
        self.threads.shutdown()

    async def _run(self, verb: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, verb)


async def _zip(items: AsyncIterator[Any], numbers: range) -> AsyncIterator[Any]:
    for number in numbers:
        try:
            yield await anext(items), number
        except StopAsyncIteration:
            return


Connect = Callable[..., Caller]
"""Makes a caller of what ``create_client`` takes."""
