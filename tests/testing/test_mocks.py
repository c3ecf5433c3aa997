"""``mock_client``: all verbs, whoever holds the client, and everything back."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import TestCase, override_settings

from django_microservices import (
    Client,
    Event,
    Inject,
    InvalidReply,
    MessageTimeout,
    NotConnected,
    RemoteError,
    Request,
    clients,
    create_client,
    inject,
)
from django_microservices.testing import ANY, MockClient, Sent, mock_client

from .test_in_process import SETTINGS


class Left(msgspec.Struct):
    """How many there are."""

    left: int


RESERVE = Request("reserve", dict[str, int], Left)
SOLD = Event("sold", int)


@pytest.fixture
def mock(stock: Client) -> Iterator[MockClient]:
    """Mock the client."""
    with mock_client("STOCK") as mock:
        yield mock


# --- verbs ------------------------------------------------------------------------


def test_send(stock: Client, mock: MockClient) -> None:
    """A request is answered, and noted."""
    mock.on("reserve", {"sku": 1}).reply({"left": 2})
    assert stock.send("reserve", {"sku": 1}, timeout=2, headers={"x": "y"}) == {
        "left": 2
    }
    (sent,) = mock.calls
    assert sent == Sent("reserve", {"sku": 1})
    assert (sent.is_event, sent.timeout, sent.headers["x"]) == (False, 2, "y")


async def test_asend(stock: Client, mock: MockClient) -> None:
    """As from async code."""
    mock.on("reserve").reply({"left": 2})
    assert await stock.asend("reserve", {"sku": 1}) == {"left": 2}
    assert mock.calls == [Sent("reserve", {"sku": 1})]


def test_stream(stock: Client, mock: MockClient) -> None:
    """A stream gives its items; asked for one value, the last."""
    mock.on("list").stream([1, 2, 3])
    assert list(stock.stream("list")) == [1, 2, 3]
    assert stock.send("list") == 3


async def test_astream(stock: Client, mock: MockClient) -> None:
    """As from async code, however long it is."""
    mock.on("list").stream(range(5000))
    assert [item async for item in stock.astream("list")] == list(range(5000))


def test_stream_of_a_single_answer(stock: Client, mock: MockClient) -> None:
    """One value is a stream of one."""
    mock.on("list").reply(1)
    assert list(stock.stream("list")) == [1]


def test_stream_that_breaks(stock: Client, mock: MockClient) -> None:
    """What came before the error is read first."""
    mock.on("list").stream([1, RemoteError("broken")])
    items = stock.stream("list")
    assert next(items) == 1
    with pytest.raises(RemoteError, match="broken"):
        next(items)


def test_emit(stock: Client, mock: MockClient) -> None:
    """An event is noted."""
    mock.on(SOLD)
    stock.emit(SOLD, 1)
    assert mock.calls == [Sent("sold", 1)]
    assert mock.calls[0].is_event


async def test_aemit(stock: Client, mock: MockClient) -> None:
    """As from async code; an event may fail, too."""
    mock.on("sold").raises(NotConnected)
    with pytest.raises(NotConnected):
        await stock.aemit("sold", 1)


def test_connect(stock: Client, mock: MockClient) -> None:
    """There is always something to connect to."""
    stock.connect()
    stock.close()
    assert mock.calls == []


async def test_aconnect(stock: Client, mock: MockClient) -> None:
    """As from async code."""
    await stock.aconnect()
    await stock.aclose()


# --- answers ----------------------------------------------------------------------


def test_contract(stock: Client, mock: MockClient) -> None:
    """A contract decodes what is answered, as in production."""
    mock.on(RESERVE, {"sku": 1}).reply({"left": 2})
    assert stock.send(RESERVE, {"sku": 1}) == Left(2)


def test_answer_of_another_type(stock: Client, mock: MockClient) -> None:
    """An answer that does not fit fails, as in production."""
    mock.on("reserve").reply({"right": 2})
    with pytest.raises(InvalidReply):
        stock.send(RESERVE, {"sku": 1})
    with pytest.raises(InvalidReply):
        stock.send("reserve", returns=int)


def test_errors(stock: Client, mock: MockClient) -> None:
    """Errors reach the caller one after the other, as they are."""
    mock.on("reserve").raises(RemoteError({"code": 1})).times_out().reply(1)
    with pytest.raises(RemoteError) as caught:
        stock.send("reserve")
    assert caught.value.error == {"code": 1}
    with pytest.raises(MessageTimeout, match="from 'STOCK' within 5 s"):
        stock.send("reserve")
    assert stock.send("reserve") == 1


def test_last_expectation_counts(stock: Client, mock: MockClient) -> None:
    """A test may say more than the fixture that it uses."""
    mock.on("reserve").reply(1)
    mock.on("reserve", {"sku": ANY}).reply(2)
    assert stock.send("reserve", {"sku": 7}) == 2
    assert stock.send("reserve", 7) == 1


def test_calls_of(stock: Client, mock: MockClient) -> None:
    """The messages of one pattern can be had alone."""
    mock.on("a").reply(1)
    mock.on({"cmd": "b"}).reply(1)
    stock.send("a", 1)
    stock.send({"cmd": "b"}, 2)
    assert mock.calls_of({"cmd": "b"}) == [Sent({"cmd": "b"}, 2)]


# --- what was not expected --------------------------------------------------------


def test_unexpected_request(stock: Client) -> None:
    """It fails at its caller, with what came and what was expected."""
    mock = mock_client("STOCK")
    mock.on("reserve", {"sku": 1}).reply(1)
    mock.on("list").stream([])
    with pytest.raises(AssertionError) as caught, mock:
        stock.send("reserve", {"sku": 2})
    assert str(caught.value) == (
        "Client 'STOCK' sent the unexpected request 'reserve' with {'sku': 2}. "
        "Expected: 'reserve' with {'sku': 1}; 'list' with <ANY>."
    )


def test_unexpected_event(stock: Client) -> None:
    """An event fails, too."""
    with pytest.raises(AssertionError) as caught, mock_client("STOCK"):
        stock.emit("sold", 1)
    assert str(caught.value) == (
        "Client 'STOCK' sent the unexpected event 'sold' with 1. Expected: nothing."
    )


async def test_unexpected_stream(stock: Client) -> None:
    """A stream fails where it is read."""
    refused = pytest.raises(AssertionError, match="the unexpected request 'list'")
    with refused, mock_client("STOCK"):
        await anext(stock.astream("list"))


def test_swallowed(stock: Client) -> None:
    """Code that catches every exception does not hide it."""
    refused = pytest.raises(AssertionError, match="the unexpected request 'reserve'")
    with refused, mock_client("STOCK"), suppress(Exception):
        stock.send("reserve")


# --- whoever holds it -------------------------------------------------------------


def test_injected_client(mock: MockClient) -> None:
    """A client that is injected is the same one."""

    @inject
    def view(client: Annotated[Client, Inject("STOCK")]) -> Any:
        return client.send("reserve")

    mock.on("reserve").reply(1)
    assert view() == 1  # type: ignore[call-arg]


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
