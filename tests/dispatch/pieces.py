"""Handlers and the pieces around them, which tell where they ran."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django_microservices import message_pattern

from .composing import POOL, STREAMS

SYNC, ASYNC = "sync", "async"


def thread() -> str:
    """Tell whether this is the loop's thread or one of the pool's."""
    name = threading.current_thread().name
    if name.startswith((POOL, STREAMS)):
        return SYNC
    asyncio.get_running_loop()
    return ASYNC


class Recorder:
    """Makes pieces that note their names and where they ran."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.places: dict[str, str] = {}

    def note(self, name: str) -> None:
        """Note a piece."""
        self.notes.append(name)
        self.places[name] = thread()

    def layer(self, name: str, kind: str = SYNC) -> Any:
        """Make middleware."""

        def sync(get_response: Any) -> Any:
            def inner(context: Any) -> Any:
                self.note(name)
                answer = get_response(context)
                self.note(f"/{name}")
                return answer

            return inner

        def async_(get_response: Any) -> Any:
            async def inner(context: Any) -> Any:
                self.note(name)
                answer = await get_response(context)
                self.note(f"/{name}")
                return answer

            return inner

        return sync if kind == SYNC else async_

    def part(self, name: str, answer: Any, kind: str = SYNC) -> Any:
        """Make a guard, a pipe or a filter: ``answer`` gets its arguments."""

        def sync(*args: Any) -> Any:
            self.note(name)
            return answer(*args)

        async def async_(*args: Any) -> Any:
            self.note(name)
            return answer(*args)

        return sync if kind == SYNC else async_


def admit(context: Any) -> bool:
    """Let everything in."""
    return True


def raise_again(exception: Exception, context: Any) -> Any:
    """Leave it to the next filter."""
    raise exception


def plus_one(value: Any, parameter: Any) -> Any:
    """Change the payload."""
    return value + 1


def deny(context: Any) -> bool:
    """Let nobody in."""
    return False


def fail(*args: Any) -> Any:
    """Fail."""
    raise ValueError("failed")


def sync_handler() -> Any:
    """Make a handler that answers with the payload and where it ran."""

    @message_pattern("a")
    def handler(data: int) -> Any:
        return [data, thread()]

    return handler


def async_handler() -> Any:
    """Make the same as a coroutine function."""

    @message_pattern("a")
    async def handler(data: int) -> Any:
        return [data, thread()]

    return handler


def sync_stream() -> Any:
    """Make the same as a generator."""

    @message_pattern("a")
    def handler(data: int) -> Iterator[Any]:
        yield data
        yield thread()

    return handler


def async_stream() -> Any:
    """Make the same as an async generator."""

    @message_pattern("a")
    async def handler(data: int) -> AsyncIterator[Any]:
        yield data
        yield thread()

    return handler


HANDLERS = {
    sync_handler: SYNC,
    async_handler: ASYNC,
    sync_stream: SYNC,
    async_stream: ASYNC,
}
