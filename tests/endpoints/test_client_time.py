"""How long a client waits."""

import asyncio
import datetime
from typing import Any

import pytest

from django_microservices import MessageTimeout
from django_microservices.endpoints.arguments import DEFAULT
from django_microservices.endpoints.client import Client
from tests.endpoints.answers import HANDLERS, cancelled, closed
from tests.endpoints.ends import PATIENCE, FakeWire, calling, client_of, serving, until


async def test_timeout_of_a_call(port: int) -> None:
    """A call's own timeout ends it, and the handler is told."""
    async with serving(port, *HANDLERS), calling(port) as client:
        await client.asend("echo")
        with pytest.raises(MessageTimeout, match=r"hang from 'tested' within 0.05 s"):
            await client.asend("hang", timeout=0.05)
        await until(cancelled.is_set)


def test_timeout_of_a_sync_call(client: Client) -> None:
    """A sync call's timeout ends it, and the handler is told."""
    client.send("echo")
    with pytest.raises(MessageTimeout):
        client.send("hang", timeout=0.05)
    assert cancelled.wait(PATIENCE)


async def test_default_timeout(port: int) -> None:
    """Without one of its own, a call has the client's."""
    async with serving(port, *HANDLERS), calling(port, timeout=0.05) as client:
        with pytest.raises(MessageTimeout, match=r"within 0.05 s|ran out of time"):
            await client.asend("hang")  # both sides know it, and either may be first


async def test_no_timeout(port: int) -> None:
    """With None a call waits for as long as it takes."""
    async with serving(port, *HANDLERS), calling(port, timeout=0.001) as client:
        waiting = asyncio.ensure_future(client.asend("hang", timeout=None))
        assert await client.asend("echo", 1, timeout=None) == 1
        assert not waiting.done()
        waiting.cancel()


async def test_timeout_travels(port: int) -> None:
    """The server learns how long the caller waits."""
    async with serving(port, *HANDLERS), calling(port) as client:
        await client.aconnect()
        assert (await client.asend("headers", timeout=2))["dm-timeout"] == "2000"
        assert "dm-timeout" not in await client.asend("headers", timeout=None)


async def test_timeout_as_a_timedelta(port: int) -> None:
    """A timeout may be a timedelta."""
    timeout = datetime.timedelta(seconds=2)
    async with serving(port, *HANDLERS), calling(port) as client:
        await client.aconnect()
        assert (await client.asend("headers", timeout=timeout))["dm-timeout"] == "2000"


async def acall(client: Client, verb: str, **arguments: Any) -> None:
    """Call an async verb, and wait for what it gives first."""
    called = getattr(client, verb)("echo", **arguments)
    await (anext(called) if verb == "astream" else called)


WRONG_ARGUMENTS = pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"timeout": "5"}, TypeError, "timeout: '5' is not a number of seconds"),
        ({"timeout": -1}, ValueError, "timeout: -1 is not a number of seconds over 0"),
        ({"timeout": float("nan")}, ValueError, "timeout: nan is not"),
        ({"headers": {"a": 1}}, TypeError, r"headers\['a'\]: a header is a text"),
        ({"options": {"prio": 1}}, TypeError, r"options\['prio'\]: unknown"),
    ],
)


@WRONG_ARGUMENTS
@pytest.mark.parametrize("verb", ["send", "stream", "emit"])
def test_wrong_arguments(
    verb: str, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """What no call can mean is refused before anything is sent."""
    wire = FakeWire()
    with pytest.raises(error, match=f"^{text}"):
        getattr(client_of(wire), verb)("echo", **arguments)
    assert wire.attempts == []


@WRONG_ARGUMENTS
@pytest.mark.parametrize("verb", ["asend", "astream", "aemit"])
async def test_wrong_arguments_of_async_verbs(
    verb: str, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """As from async code."""
    wire = FakeWire()
    with pytest.raises(error, match=f"^{text}"):
        await acall(client_of(wire), verb, **arguments)
    assert wire.attempts == []


async def test_timeout_of_an_item(port: int) -> None:
    """A stream's timeout bounds the wait for each item."""
    async with serving(port, *HANDLERS), calling(port) as client:
        items = client.astream("stall", timeout=0.1)
        assert await anext(items) == 1
        with pytest.raises(MessageTimeout):
            await anext(items)
        await until(lambda: closed)


def test_default_shows_itself() -> None:
    """The default timeout has a name in signatures."""
    assert repr(DEFAULT) == "the client's TIMEOUT"
