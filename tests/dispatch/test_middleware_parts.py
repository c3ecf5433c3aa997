"""Guards, pipes and interceptors, each as Nest has it."""

import itertools
from typing import Annotated, Any

import pytest
from django.core.exceptions import PermissionDenied

from django_microservices import (
    Inject,
    MessageContext,
    message_pattern,
    use_guards,
    use_interceptors,
    use_pipes,
)
from django_microservices.dispatch.errors import error_value
from django_microservices.dispatch.payloads import PayloadError

from .composing import Composed, context_of, handler_of
from .pieces import (
    ASYNC,
    HANDLERS,
    SYNC,
    Recorder,
    admit,
    async_handler,
    async_stream,
    deny,
    sync_handler,
    sync_stream,
    thread,
)

# --- guards -----------------------------------------------------------------------


async def adeny(context: Any) -> bool:
    """Let nobody in."""
    return False


def refuse(context: Any) -> bool:
    """Let nobody in, as a view would say it."""
    raise PermissionDenied


@pytest.mark.parametrize("guard", [deny, adeny, refuse])
@pytest.mark.parametrize("make", HANDLERS)
async def test_guard_denies(composed: Composed, make: Any, guard: Any) -> None:
    """A guard's False, or its PermissionDenied, is "Forbidden resource"."""
    handler = handler_of(use_guards(guard)(make()))
    context = context_of(handler, {"not": "an int"})
    with pytest.raises(PermissionDenied) as caught:
        await composed.answer_in(context)
    assert error_value(caught.value)["message"] == "Forbidden resource"


@pytest.mark.parametrize("guard", [deny, adeny])
async def test_nothing_is_decoded_before_a_guard(
    composed: Composed, guard: Any
) -> None:
    """What a guard refuses is never looked at, not even whether it is JSON."""
    read: list[Any] = []
    pipe = use_pipes(lambda value, parameter: read.append(value))
    handler = handler_of(pipe(use_guards(guard)(sync_handler())))
    context = context_of(handler)
    context.message.data = b"{"
    with pytest.raises(PermissionDenied):
        await composed.answer_in(context)
    assert read == []
    assert "_data" not in vars(context)


async def test_later_guard_is_not_asked(composed: Composed) -> None:
    """The first guard that denies is the last one asked."""
    recorder = Recorder()
    guards = use_guards(deny, recorder.part("second", admit))
    with pytest.raises(PermissionDenied):
        await composed.answer(handler_of(guards(sync_handler())), 1)
    assert recorder.notes == []


@pytest.mark.parametrize("make", [sync_handler, async_handler])
async def test_guard_that_forgets_to_await(composed: Composed, make: Any) -> None:
    """A coroutine is true whatever it would say: it lets nobody in."""

    def forgetful(context: Any) -> Any:
        return adeny(context)

    handler = handler_of(use_guards(forgetful)(make()))
    with pytest.raises(TypeError, match=r"Guard .* returned a coroutine: make it an"):
        await composed.answer(handler, 1)


class Staff:
    """A guard that is a class."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    async def __call__(self, context: MessageContext[Any]) -> bool:
        """Let those in who are known."""
        return bool(context.user)


async def test_guard_class(composed: Composed) -> None:
    """A guard may be a class with an async ``__call__``; it is made once."""
    one = handler_of(use_guards(Staff)(sync_handler()))
    other = handler_of(use_guards(Staff)(async_handler()))
    context = context_of(one, 1)
    context.user = "Ada"
    assert await composed.answer_in(context) == [1, SYNC]
    with pytest.raises(PermissionDenied):
        await composed.answer(other, 1)
    assert Staff.made == 1


# --- pipes and factories ----------------------------------------------------------


class Double:
    """A pipe that is a class."""

    def __call__(self, value: int, parameter: Any) -> int:
        """Change the payload."""
        return 2 * value


async def test_pipe_class(composed: Composed) -> None:
    """A pipe may be a class."""
    handler = handler_of(use_pipes(Double)(async_handler()))
    assert await composed.answer(handler, 2) == [4, ASYNC]


async def test_error_of_a_payload(composed: Composed) -> None:
    """A payload that does not fit its annotation is the caller's error."""
    with pytest.raises(PayloadError):
        await composed.answer(handler_of(async_handler()), "x")


async def test_injected_factories(composed: Composed) -> None:
    """A sync factory runs on a thread, an async one on the loop."""

    async def athread() -> str:
        return thread()

    @message_pattern("a")
    async def handler(
        data: int,
        one: Annotated[str, Inject(thread)],
        other: Annotated[str, Inject(athread)],
    ) -> list[str]:
        return [one, other]

    @message_pattern("a")
    async def alone(data: int, one: Annotated[str, Inject(thread)]) -> str:
        return one

    assert await composed.answer(handler_of(handler), 1) == [SYNC, ASYNC]
    assert await composed.answer(handler_of(alone), 1) == SYNC


# --- interceptors around streams --------------------------------------------------


def doubled(get_response: Any) -> Any:
    """Change every item, as sync code."""

    def inner(context: Any) -> Any:
        return (2 * item for item in get_response(context))

    return inner


def adoubled(get_response: Any) -> Any:
    """Change every item, as async code."""

    async def inner(context: Any) -> Any:
        items = await get_response(context)
        return (2 * item async for item in items)

    return inner


@pytest.mark.parametrize("layers", [*itertools.product((doubled, adoubled), repeat=3)])
@pytest.mark.parametrize("make", [sync_stream, async_stream])
async def test_interceptors_see_items(
    composed: Composed, make: Any, layers: Any
) -> None:
    """Each sees the stream as its own kind: a sync or an async iterator."""
    handler = handler_of(use_interceptors(*layers)(make()))
    number, _ = await composed.answer(handler, 1)
    assert number == 8
