"""Client middleware, around each call in the caller's own context."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import translation
from pytest_django import DjangoDbBlocker

from django_microservices import event_pattern, message_pattern
from django_microservices.endpoints.calls import Call
from tests.endpoints.ends import (
    calling,
    calling_sync,
    serving,
    serving_elsewhere,
    until,
)

seen: list[Any] = []
noted: list[Any] = []


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    seen.clear()
    noted.clear()


@message_pattern("double")
async def double(data: int) -> int:
    """Double a number."""
    return 2 * data


@message_pattern("count")
async def count(data: int) -> AsyncIterator[int]:
    """Stream numbers."""
    for number in range(data):
        yield number


@event_pattern("noted")
def note(data: Any) -> None:
    """Take an event."""
    noted.append(data)


HANDLERS = (double, count, note)


def where() -> dict[str, Any]:
    """Say in whose context this runs."""
    return {"thread": threading.get_ident(), "language": translation.get_language()}


def sync_layer(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """See the call, and add one to it."""

    def layer(call: Call) -> Any:
        seen.append({**where(), "pattern": call.pattern.value, "data": call.data})
        call.data += 1
        return get_response(call)

    return layer


def async_layer(
    get_response: Callable[[Call], Awaitable[Any]],
) -> Callable[[Call], Awaitable[Any]]:
    """See the call, and add one to it."""

    async def layer(call: Call) -> Any:
        seen.append({**where(), "pattern": call.pattern.value, "data": call.data})
        call.data += 1
        return await get_response(call)

    return layer


BOTH = pytest.mark.parametrize("layer", [sync_layer, async_layer])


@BOTH
def test_sync_verbs(layer: Any, free_port: Callable[[], int]) -> None:
    """Around sync verbs it sees the value, and may change it."""
    port = free_port()
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(layer,)) as client,
    ):
        assert client.send("double", 2) == 6
        assert list(client.stream("count", 2)) == [0, 1, 2]
        client.emit("noted", 3)
        async_to_sync(until)(lambda: noted)
    assert noted == [4]
    assert [(call["pattern"], call["data"]) for call in seen] == [
        ("double", 2),
        ("count", 2),
        ("noted", 3),
    ]


@BOTH
async def test_async_verbs(layer: Any, free_port: Callable[[], int]) -> None:
    """Around async verbs it sees the value, and may change it."""
    port = free_port()
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(layer,)) as client,
    ):
        assert await client.asend("double", 2) == 6
        assert [n async for n in client.astream("count", 2)] == [0, 1, 2]
        await client.aemit("noted", 3)
        await until(lambda: noted)
    assert noted == [4]
    assert [call["data"] for call in seen] == [2, 2, 3]


def test_sync_context(free_port: Callable[[], int]) -> None:
    """A sync verb's sync middleware runs on the caller's thread, in its language."""
    port = free_port()
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(sync_layer,)) as client,
        translation.override("de"),
    ):
        client.send("double", 2)
    assert seen[0]["thread"] == threading.get_ident()
    assert seen[0]["language"] == "de"


async def test_async_context(free_port: Callable[[], int]) -> None:
    """An async verb's async middleware runs on the caller's loop, in its language."""
    port = free_port()
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(async_layer,)) as client,
    ):
        with translation.override("de"):
            await client.asend("double", 2)
    assert seen[0]["thread"] == threading.get_ident()
    assert seen[0]["language"] == "de"


def test_innermost_runs_on_the_callers_thread(free_port: Callable[[], int]) -> None:
    """Beneath async middleware a sync verb's sync middleware is with its caller."""
    port = free_port()
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(async_layer, sync_layer)) as client,
    ):
        assert client.send("double", 2) == 8
    assert seen[1]["thread"] == threading.get_ident()


@pytest.fixture
def _database(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.mark.usefixtures("_database")
def test_transaction_of_the_caller(free_port: Callable[[], int]) -> None:
    """Sync middleware is inside the caller's transaction: the outbox stands on that."""
    inside: list[bool] = []

    def look(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
        def layer(call: Call) -> Any:
            inside.append(transaction.get_connection().in_atomic_block)
            return get_response(call)

        return layer

    port = free_port()
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(look,)) as client,
    ):
        with transaction.atomic():
            client.send("double", 2)
        client.send("double", 2)
        transaction.get_connection().close()
    assert inside == [True, False]


async def test_outermost_first(free_port: Callable[[], int]) -> None:
    """The first middleware is the outermost."""
    order: list[str] = []

    def named(name: str) -> Any:
        def factory(get_response: Any) -> Any:
            async def layer(call: Call) -> Any:
                order.append(name)
                return await get_response(call)

            return layer

        return factory

    port = free_port()
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(named("outer"), named("inner"))) as client,
    ):
        await client.asend("double", 2)
    assert order == ["outer", "inner"]


async def test_answer_of_its_own(free_port: Callable[[], int]) -> None:
    """Middleware may answer itself: nothing is sent."""

    def cached(get_response: Any) -> Any:
        async def layer(call: Call) -> Any:
            return "cached"

        return layer

    async with calling(free_port(), middleware=(cached,)) as client:
        assert await client.asend("double", 2) == "cached"


async def test_retry(free_port: Callable[[], int]) -> None:
    """Middleware sees the caller's errors, and headers may be changed."""
    errors: list[str] = []

    def watched(get_response: Any) -> Any:
        async def layer(call: Call) -> Any:
            try:
                return await get_response(call)
            except ConnectionError as error:
                errors.append(str(error))
                raise

        return layer

    async with calling(free_port(), middleware=(watched,)) as client:
        with pytest.raises(ConnectionError):
            await client.asend("double", 2)
    assert len(errors) == 1
    await asyncio.sleep(0)


# --- trying again -----------------------------------------------------------------


def twice(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Ask for everything twice, as a retry would."""

    def layer(call: Call) -> Any:
        seen.append(get_response(call))
        return get_response(call)

    return layer


def async_twice(
    get_response: Callable[[Call], Awaitable[Any]],
) -> Callable[[Call], Awaitable[Any]]:
    """Ask for everything twice, as a retry would."""

    async def layer(call: Call) -> Any:
        seen.append(await get_response(call))
        return await get_response(call)

    return layer


@pytest.mark.parametrize("middleware", [twice, async_twice])
async def test_asks_again_async(free_port: Any, middleware: Any) -> None:
    """Each try is a message of its own, with the data as it was given."""
    port = free_port()
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(middleware,)) as client,
    ):
        assert await client.asend("double", 4) == 8
        assert seen == [8]
        await client.aemit("noted", {"a": 1})
        await until(lambda: len(noted) == 2)
    assert noted == [{"a": 1}, {"a": 1}]


@pytest.mark.parametrize("middleware", [twice, async_twice])
def test_asks_again_sync(free_port: Any, middleware: Any) -> None:
    """The same holds for sync callers."""
    port = free_port()
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(middleware,)) as client,
    ):
        assert client.send("double", 4) == 8
        assert seen == [8]
        client.emit("noted", {"a": 1})
        async_to_sync(until)(lambda: len(noted) == 2)
    assert noted == [{"a": 1}, {"a": 1}]
