"""Handlers outside of any app, composed and called as a server does."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.concurrency.threads import Threads
from django_microservices.dispatch.decorators import Controller, marks_of
from django_microservices.dispatch.handlers import Handler
from django_microservices.dispatch.middleware import compose
from django_microservices.wire.codecs import encode
from django_microservices.wire.context import MessageContext
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern

POOL, STREAMS = "sync-pool", "stream-pool"


def handlers_of(
    function: Callable[..., Any], controller: type[Controller] | None = None
) -> list[Handler]:
    """Make the handlers that a function is marked as."""
    return [Handler(function, m, controller, str.upper) for m in marks_of(function)]


def handler_of(
    function: Callable[..., Any], controller: type[Controller] | None = None
) -> Handler:
    """Make the one handler that a function is marked as."""
    (handler,) = handlers_of(function, controller)
    return handler


def context_of(handler: Handler | None, data: Any = None) -> MessageContext[Any]:
    """Make the context of a request."""
    message = Message(Pattern.of("pattern"), encode(data), id=1)
    return MessageContext(message, handler)


class Composed:
    """What runs handlers: threads for sync pieces, and threads for sync streams."""

    def __init__(self, threads: int = 2) -> None:
        loop = asyncio.get_running_loop()
        self.pool = Threads(threads, loop, name=POOL)
        self.streams = Threads(1, loop, name=STREAMS)

    def stop(self) -> None:
        """Let the threads go."""
        assert self.pool.stop(5)
        assert self.streams.stop(5)

    async def answer(
        self, handler: Handler, data: Any = None, middleware: Iterable[Any] = ()
    ) -> Any:
        """Return what a handler answers: of a stream the list of its items."""
        return await self.answer_in(context_of(handler, data), middleware)

    async def answer_in(
        self, context: MessageContext[Any], middleware: Iterable[Any] = ()
    ) -> Any:
        """Return what the context's handler answers."""
        handler = context.handler
        chain = compose(handler, middleware, self.pool, self.streams)
        if not handler.streams and not chain.is_async:
            return await self.pool.call(chain.call, context)
        if not handler.streams:
            return await chain.call(context)
        if chain.is_async:
            items = await chain.call(context)
        else:
            items = self.streams.stream(lambda: iter(chain.call(context)))
        return [item async for item in items]


def refusal(function: Any, controller: type[Controller] | None = None) -> str:
    """Return why a function cannot be a handler."""
    with pytest.raises(ImproperlyConfigured) as caught:
        handler_of(function, controller)
    return str(caught.value)
