"""Client middleware, around each call in the caller's own context."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.db import transaction
from django.utils import translation

from django_microservices.endpoints.calls import Call
from tests.endpoints.answers import HANDLERS, noted
from tests.endpoints.ends import (
    PATIENCE,
    calling,
    calling_sync,
    serving,
    serving_elsewhere,
    until,
)

seen: list[Any] = []


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    seen.clear()


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


class SyncObject:
    """See the call, and add one to it: an object, as Django's middleware is."""

    def __init__(self, get_response: Callable[[Call], Any]) -> None:
        self.layer = sync_layer(get_response)

    def __call__(self, call: Call) -> Any:
        """Hand the call on."""
        return self.layer(call)


class AsyncObject:
    """See the call, and add one to it."""

    def __init__(self, get_response: Callable[[Call], Awaitable[Any]]) -> None:
        self.layer = async_layer(get_response)

    async def __call__(self, call: Call) -> Any:
        """Hand the call on."""
        return await self.layer(call)


BOTH = pytest.mark.parametrize(
    "layer", [sync_layer, async_layer, SyncObject, AsyncObject]
)


@BOTH
def test_sync_verbs(layer: Any, port: int) -> None:
    """Around sync verbs it sees the value, and may change it."""
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(layer,)) as client,
    ):
        assert client.send("echo", 2) == 3
        assert list(client.stream("count", 2)) == [0, 1, 2]
        client.emit("noted", 3)
        async_to_sync(until)(lambda: noted)
    assert noted == [4]
    assert [(call["pattern"], call["data"]) for call in seen] == [
        ("echo", 2),
        ("count", 2),
        ("noted", 3),
    ]


@BOTH
async def test_async_verbs(layer: Any, port: int) -> None:
    """Around async verbs it sees the value, and may change it."""
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(layer,)) as client,
    ):
        assert await client.asend("echo", 2) == 3
        assert [n async for n in client.astream("count", 2)] == [0, 1, 2]
        await client.aemit("noted", 3)
        await until(lambda: noted)
    assert noted == [4]
    assert [call["data"] for call in seen] == [2, 2, 3]


def test_sync_context(port: int) -> None:
    """A sync verb's sync middleware runs on the caller's thread, in its language."""
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(sync_layer,)) as client,
        translation.override("de"),
    ):
        client.send("echo", 2)
    assert seen[0]["thread"] == threading.get_ident()
    assert seen[0]["language"] == "de"


async def test_async_context(port: int) -> None:
    """An async verb's async middleware runs on the caller's loop, in its language."""
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(async_layer,)) as client,
    ):
        with translation.override("de"):
            await client.asend("echo", 2)
    assert seen[0]["thread"] == threading.get_ident()
    assert seen[0]["language"] == "de"


def test_innermost_runs_on_the_callers_thread(port: int) -> None:
    """Beneath async middleware a sync verb's sync middleware is with its caller."""
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(async_layer, sync_layer)) as client,
    ):
        assert client.send("echo", 2) == 4
    assert seen[1]["thread"] == threading.get_ident()


@pytest.mark.usefixtures("database")
def test_transaction_of_the_caller(port: int) -> None:
    """Sync middleware is inside the caller's transaction: the outbox stands on that."""
    inside: list[bool] = []

    def look(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
        def layer(call: Call) -> Any:
            inside.append(transaction.get_connection().in_atomic_block)
            return get_response(call)

        return layer

    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(look,)) as client,
    ):
        with transaction.atomic():
            client.send("echo", 2)
        client.send("echo", 2)
        transaction.get_connection().close()
    assert inside == [True, False]


async def test_outermost_first(port: int) -> None:
    """The first middleware is the outermost."""
    order: list[str] = []

    def named(name: str) -> Any:
        def factory(get_response: Any) -> Any:
            async def layer(call: Call) -> Any:
                order.append(name)
                return await get_response(call)

            return layer

        return factory

    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(named("outer"), named("inner"))) as client,
    ):
        await client.asend("echo", 2)
    assert order == ["outer", "inner"]


@pytest.mark.parametrize("inner", [sync_layer, async_layer, SyncObject, AsyncObject])
async def test_layer_knows_the_mode_of_the_next(inner: Any, port: int) -> None:
    """What a factory is given for an async verb says that it is async."""
    modes: list[bool] = []

    def outer(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
        modes.append(iscoroutinefunction(get_response))
        return get_response

    layers = (outer, inner)
    async with serving(port, *HANDLERS), calling(port, middleware=layers) as client:
        assert await client.asend("echo", 2) == 3
    assert modes == [False, True]  # once for sync verbs, once for async ones


def not_used(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Step aside, as Django's middleware may."""
    raise MiddlewareNotUsed


def forgetful(get_response: Callable[[Call], Any]) -> None:
    """Forget to return a layer."""


async def test_layer_that_is_not_used(port: int) -> None:
    """Middleware may leave itself out."""
    layers = (not_used, sync_layer)
    async with serving(port, *HANDLERS), calling(port, middleware=layers) as client:
        assert await client.asend("echo", 2) == 3


async def test_layer_that_is_none(port: int) -> None:
    """Middleware that returns no layer is named at the first call."""
    async with calling(port, middleware=(forgetful,)) as client:
        with pytest.raises(ImproperlyConfigured, match="forgetful returned None"):
            await client.asend("echo", 2)


async def test_sync_layers_hold_nobody_up(port: int) -> None:
    """Async calls through one are in flight together, each on a thread of its own."""
    meeting = threading.Barrier(3)

    def layer_that_meets(get_response: Callable[[Call], Any]) -> Callable[[Call], Any]:
        def inner(call: Call) -> Any:
            meeting.wait(PATIENCE)
            return get_response(call)

        return inner

    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(layer_that_meets,)) as client,
    ):
        calls = (client.asend("echo", number) for number in range(3))
        assert await asyncio.gather(*calls) == [0, 1, 2]
