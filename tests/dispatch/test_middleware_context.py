"""What a message's pieces share: its context, and the database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import translation

from django_microservices import (
    MessageContext,
    message_pattern,
    use_guards,
    use_interceptors,
)

from .composing import Composed, handler_of
from .pieces import ASYNC, HANDLERS, SYNC, Recorder, async_handler, thread

# --- context, database ------------------------------------------------------------


def in_german(get_response: Any) -> Any:
    """Speak German."""

    async def inner(context: Any) -> Any:
        with translation.override("de"):
            return await get_response(context)

    return inner


async def test_language_reaches_the_threads(composed: Composed) -> None:
    """What async middleware sets is set for the sync handler on its thread."""

    @message_pattern("a")
    def handler(data: Any) -> list[Any]:
        return [translation.get_language(), thread()]

    assert await composed.answer(handler_of(handler), 1, (in_german,)) == ["de", SYNC]


async def test_language_reaches_the_loop(composed: Composed) -> None:
    """What a sync interceptor sets is set for the async handler inside."""

    def sync_german(get_response: Any) -> Any:
        def inner(context: Any) -> Any:
            with translation.override("de"):
                return get_response(context)

        return inner

    @message_pattern("a")
    async def handler(data: Any) -> list[Any]:
        return [translation.get_language(), thread()]

    handler_ = handler_of(use_interceptors(sync_german)(handler))
    assert await composed.answer(handler_, 1) == ["de", ASYNC]


async def test_attributes_reach_the_handler(composed: Composed) -> None:
    """Middleware leaves what it knows on the context, as on a request."""

    def identify(get_response: Any) -> Any:
        async def inner(context: Any) -> Any:
            context.user, context.tenant = "Ada", 7
            return await get_response(context)

        return inner

    @message_pattern("a")
    def handler(data: Any, context: MessageContext[Any]) -> list[Any]:
        return [context.user, vars(context)["tenant"]]

    assert await composed.answer(handler_of(handler), 1, (identify,)) == ["Ada", 7]


@pytest.mark.django_db(transaction=True)
async def test_sync_guard_may_use_the_database(composed: Composed) -> None:
    """A sync piece of an async handler is not on the loop, where Django refuses."""

    def is_empty(context: Any) -> bool:
        return not User.objects.exists()

    handler = handler_of(use_guards(is_empty)(async_handler()))
    assert await composed.answer(handler, 1) == [1, ASYNC]


@pytest.mark.django_db(transaction=True)
async def test_transaction_of_sync_middleware(composed: Composed) -> None:
    """A sync handler is in it, though async pieces stand in between."""

    def in_transaction(get_response: Any) -> Any:
        return transaction.atomic(get_response)

    async def aadmit(context: Any) -> bool:
        return True

    @use_guards(aadmit)
    @message_pattern("a")
    def handler(data: Any) -> list[Any]:
        return [connection.in_atomic_block, thread()]

    answer = await composed.answer(handler_of(handler), 1, (in_transaction,))
    assert answer == [True, SYNC]


async def test_threads_do_not_wait_for_threads() -> None:
    """A message never needs a second thread of the pool while it holds one."""
    composed = Composed(1)
    recorder = Recorder()
    kinds = (SYNC, ASYNC, SYNC, ASYNC)
    layers = [recorder.layer(str(n), kind) for n, kind in enumerate(kinds)]
    try:
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *(
                    composed.answer(handler_of(make()), 1, layers)
                    for make in (*HANDLERS, *HANDLERS)
                )
            )
        assert answers == [[1, kind] for kind in (*HANDLERS.values(),) * 2]
    finally:
        composed.stop()


@message_pattern("a", uses_database=True)
async def with_database(data: Any) -> Any:
    """Answer where async calls of the ORM run."""
    return await sync_to_async(thread)()


@message_pattern("a", uses_database=True)
async def stream_with_database(data: Any) -> AsyncIterator[Any]:
    """Answer where async calls of the ORM run."""
    yield await sync_to_async(thread)()
    yield await sync_to_async(thread)()


async def test_uses_database(composed: Composed) -> None:
    """The async ORM runs on a thread of the pool, for a stream until its end."""
    assert await composed.answer(handler_of(with_database), 1) == SYNC
    assert await composed.answer(handler_of(stream_with_database), 1) == [SYNC, SYNC]


# --- streams that are no generators -----------------------------------------------


async def aitems(data: int) -> AsyncIterator[Any]:
    """Yield where it runs."""
    yield data
    yield thread()


@message_pattern("a")
def returns_async_iterator(data: int) -> AsyncIterator[Any]:
    """Return an async iterator from a plain function."""
    return aitems(data)


@message_pattern("a")
async def awaits_async_iterator(data: int) -> AsyncIterator[Any]:
    """Return one from a coroutine function."""
    return aitems(data)


@message_pattern("a")
async def awaits_iterator(data: int) -> Iterator[Any]:
    """Return a sync iterator from a coroutine function."""
    return (item() for item in (lambda: data, thread))


@message_pattern("a")
def returns_iterator(data: int) -> Iterator[Any]:
    """Return one from a plain function."""
    return (item() for item in (lambda: data, thread))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (returns_async_iterator, ASYNC),
        (awaits_async_iterator, ASYNC),
        (awaits_iterator, SYNC),
        (returns_iterator, SYNC),
    ],
)
async def test_annotated_iterators(
    composed: Composed, function: Any, kind: str
) -> None:
    """The annotation alone makes a stream, whatever the function is."""
    assert await composed.answer(handler_of(function), 1) == [1, kind]
