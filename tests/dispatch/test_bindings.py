"""Bindings: from a message to arguments."""

from typing import Any

import pytest

from django_microservices.dispatch.bindings import (
    Parameter,
    Source,
    abind_for,
    bind_for,
    refuse,
)
from django_microservices.dispatch.injection import Part
from django_microservices.wire.context import MessageContext
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern

CONTEXT = MessageContext[Any](Message(Pattern.of("p"), b"1"))
PARAMETER = Parameter("data", int, "payload")
NO_MEMBERS = Part(lambda data: ())
MEMBERS = Part(lambda data: (data, data + 1))

payload = Source(
    "data",
    Part(lambda data, context, members: data * 2),
    "payload",
    parameter=PARAMETER,
    read=lambda data: data * 2,
)
context_ = Source("context", Part(lambda data, context, members: context), "context")
first = Source("a", Part(lambda data, context, members: members[0]), "key")
second = Source("b", Part(lambda data, context, members: members[1]), "key")
piped = payload._replace(
    pipes=(Part(lambda value, parameter: f"{parameter.name}={value}"),)
)


async def double(value: Any, parameter: Any) -> Any:
    """Pipe asynchronously."""
    return value * 2


@pytest.mark.parametrize(
    ("sources", "members", "args", "kwargs"),
    [
        ([], NO_MEMBERS, (), {}),
        ([context_], NO_MEMBERS, (CONTEXT,), {}),
        ([payload], NO_MEMBERS, (10,), {}),
        ([payload, context_], NO_MEMBERS, (10, CONTEXT), {}),
        ([context_, payload], NO_MEMBERS, (CONTEXT, 10), {}),
        ([first, second], MEMBERS, (5, 6), {}),
        ([second._replace(is_keyword=True), payload], MEMBERS, (10,), {"b": 6}),
        ([piped], NO_MEMBERS, ("data=10",), {}),
    ],
)
async def test_arguments_are_bound(
    sources: list[Source], members: Part, args: Any, kwargs: Any
) -> None:
    """Each shape of a handler, with both bindings."""
    assert bind_for(sources, members)(5, CONTEXT) == (args, kwargs)
    assert await abind_for(sources, members)(5, CONTEXT) == (args, kwargs)


def test_a_source_tells_its_steps() -> None:
    """The part and the pipes behind it."""
    assert piped.parts == (piped.part, *piped.pipes)


async def test_blocking_steps_run_where_the_caller_says() -> None:
    """A pool gets those that may use the database, and no others."""
    ran = []

    async def run(function: Any, *args: Any) -> Any:
        ran.append(function)
        return function(*args)

    def pipe(value: Any, parameter: Any) -> Any:
        return value + 1

    steps = (Part(pipe, may_block=True), Part(double, is_async=True))
    bind = abind_for([payload._replace(pipes=steps)], NO_MEMBERS)
    assert await bind(5, CONTEXT, run) == ((22,), {})
    assert ran == [pipe]


async def test_blocking_steps_run_at_once_without_a_pool() -> None:
    """Where the caller names no place, here."""
    blocking = context_._replace(part=context_.part._replace(may_block=True))
    assert await abind_for([blocking], NO_MEMBERS)(5, CONTEXT) == ((CONTEXT,), {})


def test_the_sync_binding_of_async_parts_is_refused() -> None:
    """It names its twin."""
    with pytest.raises(RuntimeError, match="abind"):
        refuse(5, CONTEXT)
