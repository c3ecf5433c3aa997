"""A client's connection: made, watched, closed and made again."""

import asyncio

import pytest

from django_microservices import NotConnected
from django_microservices.endpoints.client import Client
from django_microservices.wire.status import Status
from tests.endpoints.answers import HANDLERS
from tests.endpoints.ends import calling, serving, until


async def test_aconnect(port: int) -> None:
    """It can be connected before the first call, and says what it is connected with."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert client.status == Status.DISCONNECTED
        with pytest.raises(NotConnected, match="'tested' is not connected"):
            client.unwrap()
        await client.aconnect()
        assert client.status == Status.CONNECTED
        peer = client.unwrap().get_extra_info("peername")
        assert peer == ("127.0.0.1", port)


def test_connect(client: Client) -> None:
    """So can the connection of sync callers."""
    client.connect()
    assert client.status == Status.CONNECTED
    assert client.unwrap() is not None


async def test_aconnect_without_a_server(port: int) -> None:
    """Where nobody listens connecting says so."""
    async with calling(port) as client:
        with pytest.raises(NotConnected):
            await client.aconnect()


async def test_status_is_a_stream(port: int) -> None:
    """The status may be followed from before the first call until after the close."""
    seen: list[str] = []

    async def follow(client: Client) -> None:
        async for status in client.status:
            seen.append(str(status))  # noqa: PERF401 - read while it grows

    async with serving(port, *HANDLERS), calling(port) as client:
        following = asyncio.ensure_future(follow(client))
        await asyncio.sleep(0)
        await client.aconnect()
        await until(lambda: seen[-1] == "connected")
        await client.aclose()
        await until(lambda: seen[-1] == "closed")
    following.cancel()
    assert seen == ["disconnected", "connecting", "connected", "closed"]


async def test_events(port: int) -> None:
    """Callbacks hear of connecting, of losing the link, and of errors."""
    heard: list[str] = []
    async with calling(port) as client:
        client.on("connect", lambda: heard.append("connect"))
        client.on("disconnect", lambda: heard.append("disconnect"))
        client.on("error", lambda error: heard.append(type(error).__name__))
        with pytest.raises(NotConnected):
            await client.aconnect()
        async with serving(port, *HANDLERS):
            await until(lambda: heard[-1] == "connect")
        await until(lambda: "disconnect" in heard)
    assert heard[0] == "NotConnected"


async def test_use_after_close(port: int) -> None:
    """After a close the next call connects again."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend("echo", 1) == 1
        await client.aclose()
        await client.aclose()
        assert await client.asend("echo", 2) == 2


def test_sync_use_after_close(client: Client) -> None:
    """So it is for sync callers."""
    assert client.send("echo", 1) == 1
    client.close()
    client.close()
    assert client.send("echo", 2) == 2
