"""Handlers that the tests of clients call, and what they noted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django_microservices import (
    UNSET,
    Client,
    RpcException,
    current_context,
    event_pattern,
    message_pattern,
)

noted: list[Any] = []
closed: list[str] = []
cancelled = threading.Event()


def begin_anew() -> None:
    """Forget what was noted."""
    noted.clear()
    closed.clear()
    cancelled.clear()


@message_pattern({"cmd": "sum"})
def total(data: list[int]) -> int:
    """Add numbers up."""
    return sum(data)


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("nothing")
async def nothing(data: Any) -> Any:
    """Answer without a value."""
    return UNSET


@message_pattern("headers")
async def headers(data: Any) -> dict[str, str]:
    """Return the texts beside the payload."""
    context = current_context()
    assert context is not None
    return context.headers


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never, and note that nobody waits any more."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


@message_pattern("refuse")
def refuse(data: Any) -> None:
    """Answer with an error."""
    raise RpcException(data)


@message_pattern("count")
def count(data: int) -> Iterator[int]:
    """Stream numbers from a thread."""
    try:
        yield from range(data)
    finally:
        closed.append("count")


@message_pattern("acount")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers from the loop."""
    try:
        for number in range(data):
            yield number
    finally:
        closed.append("acount")


@message_pattern("stall")
async def stall(data: Any) -> AsyncIterator[int]:
    """Stream one item and no more."""
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        closed.append("stall")


@event_pattern("noted")
async def note(data: Any) -> None:
    """Take an event."""
    noted.append(data)


HANDLERS = (
    total, echo, nothing, headers, hang, refuse, count, acount, stall, note,
)  # fmt: skip


async def use(client: Client) -> None:
    """Make one call."""
    assert await client.asend("echo", 1) == 1
