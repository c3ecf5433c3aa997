"""What the broker is told of a message, where the wire acknowledges."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import (
    MessageContext,
    RpcException,
    event_pattern,
    message_pattern,
)
from django_microservices.dispatch.payloads import PayloadError
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern
from tests.endpoints.ends import FakeListener, running, server_of, until

Settled = tuple[str, float | None, str]


class Broker:
    """Hands a server messages that are to be settled, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Settled] = []
        self.threads: set[threading.Thread] = set()

    def settle(self, outcome: str, delay: float | None, reason: str) -> None:
        """Note it, and on which thread."""
        self.told.append((outcome, delay, reason))
        self.threads.add(threading.current_thread())

    async def outcome_of(self, function: Callable[..., Any], **more: Any) -> Settled:
        """Have a message handled; return the delivery's own outcome."""
        kind = message_pattern if more.get("id", UNSET) is not UNSET else event_pattern
        server = server_of(FakeListener(), kind("it")(function))
        message = Message(Pattern.of("it"), b"1", settle=self.settle, **more)
        async with running(server):
            delivery = server.deliver(message, lambda reply: None)
            await until(lambda: delivery.outcome)
        assert delivery.outcome is not None
        return delivery.outcome, delivery.delay, delivery.reason


@pytest.fixture
def broker() -> Broker:
    """Give one that was told nothing yet."""
    return Broker()


def failing(error: BaseException) -> Callable[..., Any]:
    """Make a handler that raises."""

    def handler(data: Any) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ZeroDivisionError("secret"), ("retry", None, "ZeroDivisionError")),
        (RpcException("full"), ("retry", None, "RpcException: full")),
        (PayloadError([]), ("dead", None, "PayloadError: ")),
    ],
)
async def test_event_that_failed(
    broker: Broker, error: Exception, expected: Settled
) -> None:
    """A failed event is tried again, but not one that can never be read."""
    outcome, delay, reason = await broker.outcome_of(failing(error))
    assert (outcome, delay) == expected[:2]
    assert reason.startswith(expected[2])
    assert "secret" not in reason


async def test_request_that_failed(broker: Broker) -> None:
    """A request is done once it is answered, if only with an error."""
    outcome = await broker.outcome_of(failing(ZeroDivisionError()), id="7")
    assert outcome == ("ack", None, "")


VERDICTS = pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (lambda context: context.ack(), ("ack", None, "")),
        (lambda context: context.nack(delay=3), ("retry", 3, "")),
        (
            lambda context: context.reject("no such order"),
            ("dead", None, "no such order"),
        ),
    ],
)


@VERDICTS
async def test_verdict_of_an_async_handler(
    broker: Broker, verdict: Callable[..., None], expected: Settled
) -> None:
    """What a handler decides is told at once, and stands against what follows."""
    seen: list[Any] = []

    async def handler(data: Any, context: MessageContext[Any]) -> None:
        verdict(context)
        seen.extend(broker.told)
        raise ZeroDivisionError

    assert await broker.outcome_of(handler) == expected
    assert seen == broker.told == [expected]


@VERDICTS
async def test_verdict_of_a_sync_handler(
    broker: Broker, verdict: Callable[..., None], expected: Settled
) -> None:
    """What a handler decides on its thread is told on the loop's."""

    def handler(data: Any, context: MessageContext[Any]) -> None:
        verdict(context)

    assert await broker.outcome_of(handler) == expected
    await until(lambda: broker.told)
    assert broker.told == [expected]
    assert broker.threads == {threading.current_thread()}


async def test_first_verdict_counts(broker: Broker) -> None:
    """A second verdict changes nothing."""

    async def handler(data: Any, context: MessageContext[Any]) -> None:
        context.reject("first")
        context.ack()

    assert await broker.outcome_of(handler) == ("dead", None, "first")
    assert len(broker.told) == 1


async def test_verdict_of_one_of_several(broker: Broker) -> None:
    """One handler's ack does not keep the event from another that failed."""

    async def noted(data: Any, context: MessageContext[Any]) -> None:
        context.ack()

    listeners = (noted, failing(ZeroDivisionError()))
    server = server_of(FakeListener(), *(event_pattern("it")(one) for one in listeners))
    async with running(server):
        message = Message(Pattern.of("it"), b"1", settle=broker.settle)
        delivery = server.deliver(message, lambda reply: None)
        await until(lambda: delivery.outcome)
    assert (delivery.outcome, delivery.reason) == ("retry", "ZeroDivisionError")
    assert broker.told == []


async def test_server_that_stops_gives_events_back(broker: Broker) -> None:
    """What is in flight when a server stops is for somebody else."""
    entered: list[Any] = []

    async def hang(data: Any) -> None:
        entered.append(data)
        await asyncio.Event().wait()

    server = server_of(FakeListener(), event_pattern("it")(hang))
    async with running(server):
        message = Message(Pattern.of("it"), b"1", settle=broker.settle)
        delivery = server.deliver(message, lambda reply: None)
        await until(lambda: entered)
    assert (delivery.outcome, delivery.reason) == ("retry", "cancelled")


async def test_cancelled_request_is_done(broker: Broker) -> None:
    """A request whose caller is gone is not tried again: nobody wants the answer."""
    server = server_of(FakeListener(), message_pattern("it")(failing(KeyError())))
    async with running(server):
        message = Message(Pattern.of("it"), b"1", "7", settle=broker.settle)
        delivery = server.deliver(message, lambda reply: None)
        delivery.cancel()
    assert delivery.outcome == "ack"
