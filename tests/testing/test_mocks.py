"""``mock_client``: all verbs, every answer, and what was not expected."""

from contextlib import suppress

import msgspec
import pytest

from django_microservices import (
    Client,
    Event,
    InvalidReply,
    MessageTimeout,
    NotConnected,
    RemoteError,
    Request,
    Transport,
    create_client,
)
from django_microservices.testing import ANY, MockClient, Sent, mock_client


class Left(msgspec.Struct):
    """How many there are."""

    left: int


class Partitioned(Transport):
    """A wire that knows an option of its own."""

    message_options = frozenset(("partition",))


RESERVE = Request("reserve", dict[str, int], Left)
SOLD = Event("sold", int)


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


def test_emit_of_a_request(stock: Client, mock: MockClient) -> None:
    """A request's pattern may be emitted: it is noted, and nobody hears the reply."""
    mock.on(RESERVE).reply({"left": 2})
    stock.emit(RESERVE, {"sku": 1})
    (sent,) = mock.calls_of(RESERVE)
    assert sent.is_event


def test_options_of_the_wire(stock: Client, mock: MockClient) -> None:
    """What every wire knows may be said to a mocked one, and nothing else."""
    mock.on("sold")
    stock.emit("sold", 1, options={"priority": 1})
    with pytest.raises(TypeError, match="did you mean 'priority'"):
        stock.emit("sold", 1, options={"priorty": 1})


def test_options_of_its_own_wire() -> None:
    """And what the client's own wire knows."""
    client = create_client(Partitioned)
    with mock_client(client) as mock:
        mock.on("sold")
        client.emit("sold", 1, options={"partition": 1})
    assert mock.calls == [Sent("sold", 1)]


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
