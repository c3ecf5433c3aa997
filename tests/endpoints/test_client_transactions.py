"""Events that wait for the caller's transaction."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import TestCase

from django_microservices import UNSET, EncodingError, create_client
from django_microservices.endpoints.client import Client
from tests.endpoints.answers import noted
from tests.endpoints.ends import calling_sync, until

VERBS: list[Any] = [
    pytest.param(lambda client: client.emit, id="emit"),
    pytest.param(lambda client: async_to_sync(client.aemit), id="aemit"),
]


@pytest.mark.usefixtures("database")
def test_emit_after_the_commit(client: Client) -> None:
    """With on_commit an event is sent after the transaction, not before."""
    with transaction.atomic():
        client.emit("noted", 1, on_commit=True)
        client.send("echo")
        assert noted == []
    async_to_sync(until)(lambda: noted == [1])


@pytest.mark.usefixtures("database")
def test_emit_after_a_rollback(client: Client) -> None:
    """An event of a transaction that was rolled back is not sent."""
    with transaction.atomic():
        client.emit("noted", 1, on_commit=True)
        transaction.set_rollback(True)
    client.emit("noted", 2, on_commit=True)
    async_to_sync(until)(lambda: noted)
    assert noted == [2]


@pytest.mark.usefixtures("database")
def test_emit_on_commit_in_a_test_case(client: Client) -> None:
    """Inside a TestCase the event is a callback that the test can run."""
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            client.emit("noted", 1, on_commit=True)
            assert noted == []
        async_to_sync(until)(lambda: noted)
    assert len(callbacks) == 1


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("verb", VERBS)
def test_event_as_it_was(client: Client, verb: Any) -> None:
    """What is sent is the payload as it was when the verb was called."""
    order = {"state": "new"}
    with transaction.atomic():
        verb(client)("noted", order, on_commit=True)
        order["state"] = "changed"
    async_to_sync(until)(lambda: noted)
    assert noted == [{"state": "new"}]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("verb", VERBS)
def test_event_that_cannot_travel(client: Client, verb: Any) -> None:
    """A payload that cannot be sent is an error of the call, and not of the commit."""
    ran: list[str] = []
    with transaction.atomic():
        with pytest.raises(EncodingError):
            verb(client)("noted", object(), on_commit=True)
        transaction.on_commit(lambda: ran.append("another"))
        verb(client)("noted", UNSET, on_commit=True)
    assert ran == ["another"]
    async_to_sync(until)(lambda: noted == [UNSET])


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("verb", VERBS)
def test_event_that_cannot_be_sent_on_commit(
    free_port: Callable[[], int], verb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All is committed by then: that is logged, and what else waits is done."""
    ran: list[str] = []
    client = create_client(port=free_port())
    with transaction.atomic():
        verb(client)("noted", 1, on_commit=True)
        transaction.on_commit(lambda: ran.append("another"))
    client.close()
    assert ran == ["another"]
    assert "Client 'TCPTransport': noted was not sent on commit." in caplog.text
    assert "NotConnected" in caplog.text


@pytest.mark.usefixtures("database")
def test_aemit_after_the_commit(client: Client) -> None:
    """The async verb does so too, on the thread that has the transaction."""
    emit: Any = async_to_sync(client.aemit)
    with transaction.atomic():
        emit("noted", 1, on_commit=True)
        assert noted == []
    async_to_sync(until)(lambda: noted == [1])


@pytest.mark.usefixtures("database")
def test_middleware_after_the_commit(served: int) -> None:
    """Client middleware sees such an event when it is sent."""
    seen: list[Any] = []

    def look(get_response: Any) -> Any:
        def layer(call: Any) -> Any:
            seen.append(call.data)
            return get_response(call)

        return layer

    with calling_sync(served, middleware=(look,)) as client:
        with transaction.atomic():
            client.emit("noted", 1, on_commit=True)
            assert seen == []
        assert seen == [1]
