"""What becomes of one message: its answer and its errors."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django.utils import translation

from django_microservices import (
    UNSET,
    MessageContext,
    MessageTooLarge,
    RpcException,
    current_context,
    event_pattern,
)
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import Reply
from tests.endpoints.ends import until
from tests.endpoints.peer import BOTH, INTERNAL, Start, async_handler, raising

# --- answers ----------------------------------------------------------------------


@BOTH
async def test_answer(start: Start, handler: Any) -> None:
    """What a handler returns is the answer."""
    peer = await start(handler)
    assert await peer.ask(data=b'{"a": 1}') == {"a": 1}
    assert len(peer.replies) == 1
    assert not peer.server.in_flight


@pytest.mark.parametrize("is_async", [False, True])
async def test_no_value(start: Start, *, is_async: bool) -> None:
    """UNSET is an answer without a value; None is null."""

    def nothing(data: Any) -> Any:
        return UNSET

    async def anothing(data: Any) -> Any:
        return UNSET

    peer = await start(anothing if is_async else nothing)
    assert await peer.ask() is UNSET


@BOTH
async def test_event(start: Start, handler: Any) -> None:
    """What an event's handler returns goes nowhere."""
    peer = await start(handler, kind=event_pattern)
    delivery = peer.send(id=UNSET)
    await until(lambda: delivery.outcome)
    assert (peer.replies, delivery.outcome) == ([], "ack")


async def test_when_done(start: Start) -> None:
    """Who asks for the end is told, also when it came already."""
    done: list[Any] = []
    peer = await start(async_handler)
    delivery = peer.send()
    delivery.when_done(done.append)
    await until(lambda: done)
    delivery.when_done(done.append)
    assert done == [delivery, delivery]


@BOTH
async def test_current_context(start: Start, handler: Any) -> None:
    """The context is at hand in deep code."""

    def deep(data: Any) -> Any:
        context = current_context()
        assert isinstance(context, MessageContext)
        return context.pattern

    async def adeep(data: Any) -> Any:
        return deep(data)

    peer = await start(adeep if iscoroutinefunction(handler) else deep)
    assert await peer.ask() == "it"
    assert current_context() is None


@BOTH
async def test_language_ends_with_the_message(start: Start, handler: Any) -> None:
    """A language that a handler activates is gone at the next message."""

    def activate(data: Any) -> Any:
        before = translation.get_language()
        translation.activate("de")
        return before

    async def aactivate(data: Any) -> Any:
        return activate(data)

    function = aactivate if iscoroutinefunction(handler) else activate
    peer = await start(function, threads=1)
    assert [await peer.ask(), await peer.ask()] == ["en", "en"]


# --- errors -----------------------------------------------------------------------


ERRORS = [
    (RpcException("no"), {"status": "error", "message": "no"}),
    (RpcException({"code": 7}), {"code": 7}),
    (PermissionDenied("secret"), {"status": "error", "message": "Forbidden resource"}),
    (Http404("secret"), {"status": "error", "message": "Not found."}),
    (ZeroDivisionError("secret"), INTERNAL),
    (SystemExit("secret"), INTERNAL),
    (GeneratorExit("secret"), INTERNAL),
    (asyncio.CancelledError("secret"), INTERNAL),
    (RpcException(object()), INTERNAL),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("error", "value"), ERRORS)
async def test_error(
    start: Start, error: BaseException, value: Any, *, is_async: bool
) -> None:
    """Each error is answered, with nothing in it that was not meant for the caller."""
    peer = await start(raising(error, is_async=is_async))
    assert await peer.ask() == value
    assert len(peer.replies) == 1
    assert not peer.server.in_flight


async def test_validation_error(start: Start) -> None:
    """A ValidationError tells its fields."""
    error = ValidationError({"name": ["Too long."]})
    answer = await (await start(raising(error, is_async=False))).ask()
    assert answer["errors"] == [{"path": "name", "message": "Too long."}]


async def test_defect_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody expected is logged with its traceback, an answer is not."""
    await (await start(raising(RpcException("no"), is_async=True))).ask()
    assert caplog.records == []
    await (await start(raising(ZeroDivisionError("why"), is_async=True))).ask()
    assert "failed for request it" in caplog.text
    assert "ZeroDivisionError: why" in caplog.text


async def test_failing_event(start: Start) -> None:
    """An event whose handler fails is to be retried, and nothing is answered."""
    fail = raising(ZeroDivisionError(), is_async=False)
    peer = await start(fail, kind=event_pattern)
    delivery = peer.send(id=UNSET)
    await until(lambda: delivery.outcome)
    assert (peer.replies, delivery.outcome) == ([], "retry")


@pytest.mark.parametrize("is_async", [False, True])
async def test_answer_that_cannot_travel(start: Start, *, is_async: bool) -> None:
    """What cannot be encoded is answered with the fixed error."""

    def wrong(data: Any) -> Any:
        return object()

    async def awrong(data: Any) -> Any:
        return object()

    assert await (await start(awrong if is_async else wrong)).ask() == INTERNAL


TOO_LARGE = {"status": "error", "message": "A message or its answer is too large."}


@pytest.mark.parametrize(
    ("error", "told"),
    [(MessageTooLarge("too large"), TOO_LARGE), (KeyError("seam"), INTERNAL)],
)
async def test_answer_that_the_wire_refuses(
    start: Start, error: Exception, told: Any
) -> None:
    """An answer that the wire refuses is replaced by an error: size is told of."""
    peer = await start(async_handler)

    def respond(reply: Reply) -> None:
        if reply.data is not None:
            raise error
        peer.replies.append(reply)

    peer.respond = respond
    assert await peer.ask() == told


async def test_wire_that_refuses_everything(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Where not even the error can be sent, the message ends all the same."""
    ended: list[Any] = []
    peer = await start(async_handler)

    def respond(reply: Reply) -> None:
        raise KeyError("seam")

    peer.respond = respond
    peer.send().when_done(ended.append)
    await until(lambda: ended)
    assert "Nor can the error be sent." in caplog.text


async def test_answer_to_a_slow_reader(start: Start) -> None:
    """Nobody waits for the peer to read the last reply."""
    waited: list[str] = []
    peer = await start(async_handler)

    async def slow() -> None:
        waited.append("never")

    def respond(reply: Reply) -> Any:
        peer.replies.append(reply)
        return slow()

    peer.respond = respond
    assert await peer.ask() == 1
    assert waited == []


async def ended(data: Any) -> None:
    """Raise what ends a generator."""
    raise GeneratorExit


async def ended_stream(data: Any) -> AsyncIterator[int]:
    """Do so after an item."""
    yield 1
    raise GeneratorExit


@pytest.mark.parametrize("handler", [ended, ended_stream])
async def test_no_task_ends_with_an_error(start: Start, handler: Any) -> None:
    """Whatever a handler raises, it is answered, and no task is left with it."""
    peer = await start(handler)
    delivery = peer.send()
    await until(delivery.task.done)
    assert delivery.task.exception() is None
    assert decode(peer.replies[-1].error or b"") == INTERNAL


async def test_unexpected_exit_of_a_thread(start: Start) -> None:
    """KeyboardInterrupt on a thread is answered, too, and goes on."""
    peer = await start(raising(KeyboardInterrupt(), is_async=False))
    assert await peer.ask() == INTERNAL
