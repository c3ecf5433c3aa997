"""Servers for the length of one call, on the caller's own loop: for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ..concurrency.inline import Inline
from ..endpoints.server import Server


@asynccontextmanager
async def serving(
    transport: Any, find: Callable[[], Awaitable[Iterable[Server]]]
) -> AsyncIterator[None]:
    """Run what ``find`` gives inside the block, unless ``transport`` is served."""
    if transport.is_served():
        yield
        return
    async with AsyncExitStack() as stack:
        for server in await find():
            await server.start(_inline)
            stack.push_async_callback(server.stop)
        yield


def _inline(_: bool) -> tuple[Inline, Inline]:  # noqa: FBT001 - as Microservice calls it
    loop = asyncio.get_running_loop()
    return Inline(loop), Inline(loop)
