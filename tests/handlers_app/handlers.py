"""What this app answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.core.exceptions import PermissionDenied

from django_microservices import (
    UNSET,
    Controller,
    RpcException,
    current_context,
    event_pattern,
    message_pattern,
)

released = asyncio.Event()


@message_pattern({"cmd": "sum"})
def total(data: list[int]) -> int:
    """Add numbers up."""
    return sum(data)


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("headers")
async def headers(data: None) -> dict[str, str]:
    """Return the texts that travelled beside the payload."""
    context = current_context()
    assert context is not None
    return {**context.headers, "request_id": context.request_id}


@message_pattern("count")
def count(data: int) -> Iterator[int]:
    """Stream numbers."""
    yield from range(data)


@message_pattern("acount")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers from the loop."""
    for number in range(data):
        yield number


@message_pattern("undefined")
def undefined(data: None) -> Any:
    """Answer without a value."""
    return UNSET


@message_pattern("refuse")
def refuse(data: str) -> None:
    """Answer with an error of one's own."""
    raise RpcException(data)


@message_pattern("forbid")
def forbid(data: None) -> None:
    """Answer that it may not be."""
    raise PermissionDenied


@message_pattern("hold")
async def hold(data: None) -> str:
    """Say that it runs, and answer when it is released."""
    print("holding", flush=True)  # noqa: T201 - the test waits for this line
    await released.wait()
    return "held"


@message_pattern("release")
async def release(data: None) -> None:
    """Let those that are held answer."""
    released.set()


@event_pattern("noted")
def note(data: Any) -> None:
    """Take an event."""


class Greetings(Controller):
    """Handlers of a class."""

    @message_pattern("greet")
    def greet(self, data: str) -> str:
        """Greet somebody."""
        return f"Hello {data}"
