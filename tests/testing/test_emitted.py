"""``assert_emitted``: whichever client it is, and where it goes."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import TestCase, override_settings

from django_microservices import Client, Event, NotConnected, clients
from django_microservices.endpoints.connection import Connection
from django_microservices.testing import (
    ANY,
    MockClient,
    Sent,
    assert_emitted,
    mock_client,
)

SOLD = Event("sold", dict[str, int])


@pytest.fixture
def mock(stock: Client) -> Iterator[MockClient]:
    """Mock the client."""
    with mock_client("STOCK") as mock:
        mock.on("sold")
        mock.on("ask").reply(1)
        yield mock


def refusal(
    client: Client, *expected: Any, emitted: tuple[Any, ...] = (), **more: Any
) -> str:
    """Return why an assertion fails."""

    def emit() -> None:
        with assert_emitted(*expected, **more):
            for data in emitted:
                client.emit("sold", data)

    with pytest.raises(AssertionError) as caught:
        emit()
    return str(caught.value)


def test_emitted(stock: Client, mock: MockClient) -> None:
    """An event is found by pattern and payload, and all are listed."""
    with assert_emitted(SOLD, {"sku": ANY}) as sent:
        stock.emit(SOLD, {"sku": 1})
    assert sent == [Sent("sold", {"sku": 1})]
    assert sent[0].is_event


async def test_emitted_by_async_code(stock: Client, mock: MockClient) -> None:
    """As from async code."""
    with assert_emitted("sold", times=2):
        await stock.aemit("sold", 1)
        await stock.aemit("sold", 2)


def test_requests_are_no_events(stock: Client, mock: MockClient) -> None:
    """A request is not emitted."""
    with assert_emitted("ask", times=0) as sent:
        stock.send("ask")
    assert sent == []


def test_not_emitted(stock: Client, mock: MockClient) -> None:
    """A failure names the event, and what was emitted instead."""
    assert refusal(stock, "paid", {"id": 1}, emitted=(1, 2)) == (
        "'paid' with {'id': 1} was not emitted at all. "
        "Emitted: 'sold' with 1; 'sold' with 2."
    )
    assert refusal(stock, "paid") == (
        "'paid' with <ANY> was not emitted at all. Emitted: nothing."
    )


def test_emitted_too_often(stock: Client, mock: MockClient) -> None:
    """A failure says how often it was."""
    assert refusal(stock, "sold", times=1, emitted=(1, 2)).startswith(
        "'sold' with <ANY> was not emitted 1 time(s), but 2."
    )


def test_error_of_the_block(stock: Client) -> None:
    """An error of the block is not hidden by what was not emitted."""
    with pytest.raises(KeyError), assert_emitted("sold"):
        raise KeyError


def test_not_taken_by_the_wire(stock: Client) -> None:
    """An event that could not be sent was not emitted."""
    with assert_emitted("sold", times=0), pytest.raises(NotConnected):
        stock.emit("sold", 1)
    stock.close()


def test_nested(stock: Client, mock: MockClient) -> None:
    """Each block sees what is emitted while it runs; after the last all is back."""
    emit = Connection.emit
    with assert_emitted("sold", times=2):
        stock.emit("sold", 1)
        with assert_emitted("sold", times=1):
            stock.emit("sold", 2)
    assert Connection.emit is emit
    with assert_emitted("sold", times=1):
        stock.emit("sold", 3)
        assert Connection.emit is not emit


@override_settings(MICROSERVICES={"CLIENTS": {"STOCK": {}}})
class OnCommitTests(TestCase):
    """Events that wait for the transaction."""

    @mock_client("STOCK")
    def test_on_commit(self) -> None:
        """They are emitted when it commits, so in a TestCase not by themselves."""
        with assert_emitted("sold", times=0):
            clients["STOCK"].emit("sold", 1, on_commit=True)
