"""Client middleware that asks again, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_microservices.endpoints.calls import Call
from tests.endpoints.answers import HANDLERS, noted
from tests.endpoints.ends import (
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


async def test_answer_of_its_own(port: int) -> None:
    """Middleware may answer itself: nothing is sent."""

    def cached(get_response: Any) -> Any:
        async def layer(call: Call) -> Any:
            return "cached"

        return layer

    async with calling(port, middleware=(cached,)) as client:
        assert await client.asend("echo", 2) == "cached"


async def test_retry(port: int) -> None:
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

    async with calling(port, middleware=(watched,)) as client:
        with pytest.raises(ConnectionError):
            await client.asend("echo", 2)
    assert len(errors) == 1
    await asyncio.sleep(0)


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
async def test_asks_again_async(port: int, middleware: Any) -> None:
    """Each try is a message of its own, with the data as it was given."""
    async with (
        serving(port, *HANDLERS),
        calling(port, middleware=(middleware,)) as client,
    ):
        assert await client.asend("echo", 4) == 4
        assert seen == [4]
        await client.aemit("noted", {"a": 1})
        await until(lambda: len(noted) == 2)
    assert noted == [{"a": 1}, {"a": 1}]


@pytest.mark.parametrize("middleware", [twice, async_twice])
def test_asks_again_sync(port: int, middleware: Any) -> None:
    """The same holds for sync callers."""
    with (
        serving_elsewhere(port, *HANDLERS),
        calling_sync(port, middleware=(middleware,)) as client,
    ):
        assert client.send("echo", 4) == 4
        assert seen == [4]
        client.emit("noted", {"a": 1})
        async_to_sync(until)(lambda: len(noted) == 2)
    assert noted == [{"a": 1}, {"a": 1}]
