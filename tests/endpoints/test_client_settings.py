"""A client and its settings, which may change."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_microservices import MessageTimeout, clients, create_client, message_pattern
from django_microservices.wire.status import Status
from tests.endpoints.answers import HANDLERS, use
from tests.endpoints.ends import serving, serving_elsewhere, until


def settings_for(port: int, **more: Any) -> dict[str, Any]:
    """Name one client in settings."""
    return {"CLIENTS": {"MATH": {"OPTIONS": {"port": port}, **more}}}


def test_override_settings(free_port: Callable[[], int]) -> None:
    """Settings that change take effect at once, on an object kept at module level."""
    client = clients["MATH"]
    first, second = free_port(), free_port()

    @message_pattern("which")
    async def one(data: Any) -> str:
        return "first"

    @message_pattern("which")
    async def two(data: Any) -> str:
        return "second"

    with serving_elsewhere(first, one), serving_elsewhere(second, two):
        with override_settings(MICROSERVICES=settings_for(first)):
            assert client.send("which") == "first"
            with override_settings(MICROSERVICES=settings_for(second)):
                assert client.send("which") == "second"
            assert client.send("which") == "first"
        with pytest.raises(ImproperlyConfigured, match="MATH"):
            client.send("which")


async def test_override_settings_in_a_loop(port: int) -> None:
    """They may change inside a running loop; the connection there is closed soon."""
    client = clients["MATH"]
    async with serving(port, *HANDLERS) as server:
        with override_settings(MICROSERVICES=settings_for(port)):
            assert await client.asend("echo", 1) == 1
            status = client.status
            intake: Any = server._intake
            assert len(intake.connections) == 1
        await until(lambda: not intake.connections)
        assert status == Status.CLOSED


def test_settings_of_a_closed_loop(served: int) -> None:
    """A connection whose loop has ended is no obstacle to new settings."""
    client = clients["MATH"]
    with override_settings(MICROSERVICES=settings_for(served)):
        asyncio.run(use(client))
    assert len(client._connections) == 0


def test_callable_entry(served: int) -> None:
    """An entry that is a callable is called once, before the first use."""
    calls: list[str] = []

    def entry() -> dict[str, Any]:
        calls.append("sync")
        return {"OPTIONS": {"port": served}}

    with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
        client = clients["MATH"]
        assert calls == []
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: client.send("echo"), range(16)))
    assert calls == ["sync"]


async def test_async_callable_entry(port: int) -> None:
    """So is an async one, however many tasks use it first."""
    calls: list[str] = []

    async def entry() -> dict[str, Any]:
        await asyncio.sleep(0)
        calls.append("async")
        return {"OPTIONS": {"port": port}}

    async with serving(port, *HANDLERS):
        with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
            client = clients["MATH"]
            await asyncio.gather(*(client.asend("echo") for _ in range(16)))
    assert calls == ["async"]


def test_async_callable_entry_for_sync_callers(served: int) -> None:
    """Sync callers have an async entry awaited for them."""

    async def entry() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"OPTIONS": {"port": served}}

    with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
        assert clients["MATH"].send("echo", 1) == 1


def test_timeout_of_settings(served: int) -> None:
    """TIMEOUT is the default of every call."""
    with (
        override_settings(MICROSERVICES=settings_for(served, TIMEOUT=0.05)),
        pytest.raises(MessageTimeout, match=r"'MATH' within 0.05 s"),
    ):
        clients["MATH"].send("hang")


def test_create_client(served: int) -> None:
    """A client can be made outside settings, in two forms."""
    first = create_client(port=served)
    second = create_client({"OPTIONS": {"port": served}, "TIMEOUT": 0.05})
    assert first.send("echo", 1) == 1
    with pytest.raises(MessageTimeout, match="'TCPTransport'"):
        second.send("hang")
    first.close()
    second.close()
