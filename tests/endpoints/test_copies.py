"""A wire that makes a copy of a message for each subscription that matches it."""

import asyncio
from typing import Any

import pytest

from django_microservices import event_pattern, message_pattern
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import NATS, Pattern
from tests.endpoints.ends import FakeListener, running, server_of


class Copying(FakeListener):
    """A wire with wildcards."""

    grammar = NATS


async def handled(*functions: Any, subject: str, id_: Any = UNSET) -> list[Any]:
    """Deliver a copy for each matching subscription; return what ran, and the replies.

    The copies of equal subscriptions are one, as on every wire.
    """
    server = server_of(Copying(), *functions)
    replies: list[Reply] = []
    async with running(server):
        subscriptions = {s.pattern: s for s in server.registry.subscriptions}
        for pattern, subscription in subscriptions.items():
            if NATS.matches(pattern.route, subject):
                message = Message(
                    Pattern.of(subject), b"1", id_, subscription=subscription
                )
                delivery = server.deliver(message, replies.append)
                if delivery.outcome is None:
                    await _done(delivery)
                assert delivery.outcome == "ack"
    return replies


async def _done(delivery: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    delivery.when_done(future.set_result)
    await future


def noting(into: list[str], name: str, *patterns: str, kind: Any) -> Any:
    """Make a handler that notes that it ran."""

    async def handler(data: Any) -> str:
        into.append(name)
        return name

    handler.__qualname__ = name
    return kind(*patterns)(handler)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([("a.b",), ("a.*",), (">",)], ["first", "second", "third"]),
        ([("a.*",), ("a.*",)], ["first", "second"]),
        ([("a.*", "a.b", ">"), ("a.b",)], ["first", "second"]),
        ([("a.c", "a.*")], ["first"]),
    ],
)
async def test_event_runs_each_handler_once(
    patterns: list[tuple[str, ...]], expected: list[str]
) -> None:
    """However many copies come, every matching handler runs once."""
    ran: list[str] = []
    names = ("first", "second", "third")
    functions = [
        noting(ran, name, *of, kind=event_pattern)
        for name, of in zip(names, patterns, strict=False)
    ]
    await handled(*functions, subject="a.b")
    assert sorted(ran) == expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([("a.*",), ("a.b",)], "second"),
        ([(">",), ("a.*",)], "second"),
        ([("*.b",), ("a.*",)], "first"),
        ([("a.*", "a.b"), (">",)], "first"),
    ],
)
async def test_request_runs_once(
    patterns: list[tuple[str, ...]], expected: str
) -> None:
    """Of all copies of a request one is answered, by the handler that suits best."""
    ran: list[str] = []
    names = ("first", "second")
    functions = [
        noting(ran, name, *of, kind=message_pattern)
        for name, of in zip(names, patterns, strict=False)
    ]
    replies = await handled(*functions, subject="a.b", id_="7")
    assert ran == [expected]
    assert len(replies) == 1
