"""For how long a client is mocked, and for whom."""

import asyncio
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import TestCase, override_settings

from django_microservices import (
    Client,
    Inject,
    NotConnected,
    clients,
    create_client,
    inject,
)
from django_microservices.testing import MockClient, Sent, mock_client

from .test_in_process import SETTINGS

# --- whoever holds it -------------------------------------------------------------


def test_injected_client(mock: MockClient) -> None:
    """A client that is injected is the same one."""

    @inject
    def view(client: Annotated[Client, Inject("STOCK")]) -> Any:
        return client.send("reserve")

    mock.on("reserve").reply(1)
    assert view() == 1


def test_client_outside_of_settings(stock: Client) -> None:
    """A client that was made by hand can be mocked itself."""
    client = create_client(port=1)
    with mock_client(client) as mock:
        mock.on("a").reply(1)
        assert client.send("a") == 1


def test_client_of_a_handler() -> None:
    """A handler under test asks its mocked client, in the test's own thread."""
    settings = {**SETTINGS, "CLIENTS": {**SETTINGS["CLIENTS"], "STOCK": {}}}
    with override_settings(MICROSERVICES=settings), mock_client("STOCK") as mock:
        mock.on("reserve", 1).reply("yes")
        assert clients["USERS"].send("forward", 1) == "yes"


def test_unknown_client(stock: Client) -> None:
    """A client that settings do not have is as wrong as in production."""
    refused = pytest.raises(ImproperlyConfigured, match="did you mean 'STOCK'")
    with refused, mock_client("STOKC"):
        clients["STOKC"].send("a")


def test_middleware_and_timeout(settings: Any) -> None:
    """What settings say of the client holds."""

    def mark(get_response: Any) -> Any:
        def inner(call: Any) -> Any:
            call.headers = {"tenant": "7"}
            return get_response(call)

        return inner

    settings.MICROSERVICES = {
        "CLIENTS": {"STOCK": {"TIMEOUT": 9, "MIDDLEWARE": [mark]}}
    }
    with mock_client("STOCK") as mock:
        mock.on("a").reply(1)
        assert clients["STOCK"].send("a") == 1
    assert (mock.calls[0].timeout, mock.calls[0].headers) == (9, {"tenant": "7"})


async def test_async_settings(settings: Any) -> None:
    """Settings that must be awaited are."""

    async def entry() -> dict[str, Any]:
        return {"TIMEOUT": 9}

    settings.MICROSERVICES = {"CLIENTS": {"STOCK": entry}}
    with mock_client("STOCK") as mock:
        mock.on("a").reply(1)
        assert await clients["STOCK"].asend("a") == 1
    assert mock.calls[0].timeout == 9


# --- blocks -----------------------------------------------------------------------


def test_restored(stock: Client) -> None:
    """After the block the client is what it was, error or not."""
    load = stock._load
    with pytest.raises(KeyError), mock_client("STOCK"):
        raise KeyError
    assert stock._load == load
    with pytest.raises(NotConnected):
        stock.send("reserve")
    stock.close()


def test_nested(stock: Client) -> None:
    """The inner block counts while it lasts."""
    with mock_client("STOCK") as outer, mock_client("OTHER") as other:
        outer.on("a").reply("outer")
        other.on("a").reply("other")
        with mock_client("STOCK") as inner:
            inner.on("a").reply("inner")
            assert stock.send("a") == "inner"
            assert clients["OTHER"].send("a") == "other"
        assert stock.send("a") == "outer"
    assert (len(outer.calls), len(inner.calls), len(other.calls)) == (1, 1, 1)


def test_left_out_of_order(stock: Client) -> None:
    """Blocks of two threads may end in any order."""
    load = stock._load
    one, other = mock_client("STOCK"), mock_client("STOCK")
    one.on("a").reply("one")
    other.on("a").reply("other")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert stock.send("a") == "other"
    other.__exit__(None, None, None)
    assert stock._load == load


def test_entered_twice(stock: Client) -> None:
    """A block within itself notes all calls of both."""
    mock = mock_client("STOCK")
    mock.on("a").reply(1).reply(2)
    with mock:
        stock.send("a")
        with mock:
            stock.send("a")
        assert len(mock.calls) == 2
    with mock:
        assert stock.send("a") == 1
    assert len(mock.calls) == 1


async def test_in_parallel(stock: Client, mock: MockClient) -> None:
    """Many calls at once are answered each."""
    for number in range(20):
        mock.on("a", number).reply(-number)
    answers = await asyncio.gather(*(stock.asend("a", n) for n in range(20)))
    assert answers == [-number for number in range(20)]


def test_settings_change_meanwhile(stock: Client, mock: MockClient) -> None:
    """The client stays mocked while settings change."""
    mock.on("a").reply(1)
    with override_settings(MICROSERVICES={"CLIENTS": {"STOCK": {"TIMEOUT": 9}}}):
        assert stock.send("a") == 1
    assert mock.calls[0].timeout == 9


# --- decorators -------------------------------------------------------------------


decorated = mock_client("STOCK")
decorated.on("a").reply(1)


@decorated
def test_decorated(stock: Client) -> None:
    """A function may be decorated."""
    assert stock.send("a") == 1
    assert decorated.calls == [Sent("a")]


@decorated
async def test_decorated_async(stock: Client) -> None:
    """So may an async one; each use begins anew."""
    assert await stock.asend("a") == 1
    assert decorated.calls == [Sent("a")]


@override_settings(MICROSERVICES={"CLIENTS": {"STOCK": {}}})
class DecoratedTests(TestCase):
    """Methods of a TestCase."""

    @decorated
    def test_sync(self) -> None:
        """A method may be decorated."""
        assert clients["STOCK"].send("a") == 1

    @decorated
    async def test_async(self) -> None:
        """So may an async one."""
        assert await clients["STOCK"].asend("a") == 1
