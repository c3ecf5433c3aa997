"""What becomes of one message: its answer, its errors, its time."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connections, transaction
from django.http import Http404
from django.utils import translation
from pytest_django import DjangoDbBlocker

from django_microservices import (
    UNSET,
    MessageContext,
    MessageTooLarge,
    RpcException,
    current_context,
    event_pattern,
    message_pattern,
)
from django_microservices.dispatch.errors import TIMED_OUT
from django_microservices.endpoints.delivery import TURN
from django_microservices.endpoints.server import Server
from django_microservices.signals import (
    message_failed,
    message_handled,
    message_received,
)
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import Message, Reply
from django_microservices.wire.patterns import Pattern
from tests.endpoints.ends import FakeListener, running, server_of, until

INTERNAL = {"status": "error", "message": "Internal server error"}
LATE = {"status": "error", "message": TIMED_OUT}

Start = Callable[..., Any]


class Peer:
    """Hands messages to a server of the functions given, and keeps the replies."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.replies: list[Reply] = []
        self.respond: Callable[[Reply], Any] = self.replies.append

    def send(self, **more: Any) -> Any:
        """Deliver a request, or with ``id=UNSET`` an event."""
        more = {"data": b"1", "id": "id", **more}
        message = Message(Pattern.of("it"), **more)
        return self.server.deliver(message, self._respond)

    def _respond(self, reply: Reply) -> Any:
        return self.respond(reply)

    async def ask(self, **more: Any) -> Any:
        """Deliver, and return what was answered last, decoded, or the error."""
        delivery = self.send(**more)
        await until(lambda: delivery.outcome)
        reply = self.replies[-1]
        if reply.error is not None:
            return decode(reply.error)
        return UNSET if reply.data is None else decode(bytes(reply.data))

    @property
    def items(self) -> list[Any]:
        """What a stream sent."""
        return [decode(bytes(r.data)) for r in self.replies if r.data is not None]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Give a function that starts a server of handlers of the pattern "it"."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            function: Any, *, kind: Any = message_pattern, threads: int = 4, **more: Any
        ) -> Peer:
            options = more.pop("options", {})
            handler = kind("it", **options)(function)
            server = server_of(FakeListener(), handler, **more)
            await stack.enter_async_context(running(server, threads=threads))
            return Peer(server)

        yield start


class Gate:
    """What a thread waits for, until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def wait(self) -> None:
        """Wait on a thread."""
        self.entered.set()
        assert self.go_on.wait(10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give one that is open in the end."""
    gate = Gate()
    yield gate
    gate.go_on.set()


# --- answers ----------------------------------------------------------------------


def sync_handler(data: Any) -> Any:
    """Return what came."""
    return data


async def async_handler(data: Any) -> Any:
    """Return what came."""
    return data


BOTH = pytest.mark.parametrize("handler", [sync_handler, async_handler])


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


def raising(error: BaseException, *, is_async: bool) -> Any:
    """Make a handler that raises."""

    def fail(data: Any) -> None:
        raise error

    async def afail(data: Any) -> None:
        raise error

    return afail if is_async else fail


ERRORS = [
    (RpcException("no"), {"status": "error", "message": "no"}),
    (RpcException({"code": 7}), {"code": 7}),
    (PermissionDenied("secret"), {"status": "error", "message": "Forbidden resource"}),
    (Http404("secret"), {"status": "error", "message": "Not found."}),
    (ZeroDivisionError("secret"), INTERNAL),
    (SystemExit("secret"), INTERNAL),
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


@pytest.mark.parametrize("error", [MessageTooLarge("too large"), KeyError("seam")])
async def test_answer_that_the_wire_refuses(start: Start, error: Exception) -> None:
    """An answer that the wire refuses is replaced by the fixed error."""
    peer = await start(async_handler)

    def respond(reply: Reply) -> None:
        if reply.data is not None:
            raise error
        peer.replies.append(reply)

    peer.respond = respond
    assert await peer.ask() == INTERNAL


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


async def test_unexpected_exit_of_a_thread(start: Start) -> None:
    """KeyboardInterrupt on a thread is answered, too, and goes on."""
    peer = await start(raising(KeyboardInterrupt(), is_async=False))
    assert await peer.ask() == INTERNAL


# --- time -------------------------------------------------------------------------


async def test_caller_gave_up_on_an_async_handler(start: Start) -> None:
    """An async handler ends when its caller's time is up."""
    cancelled = asyncio.Event()

    async def hang(data: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    peer = await start(hang)
    assert await peer.ask(timeout=0.02) == LATE
    await cancelled.wait()
    assert peer.server.timed_out == 1


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_handlers_own_timeout(
    start: Start,
    timeout: float | None,  # noqa: ASYNC109 - the caller's
) -> None:
    """A handler's own timeout ends it, however patient its caller is."""

    async def hang(data: Any) -> None:
        await asyncio.Event().wait()

    peer = await start(hang, options={"timeout": 0.02})
    assert await peer.ask(timeout=timeout) == LATE


async def test_sync_handlers_own_timeout(start: Start, gate: Gate) -> None:
    """A sync handler is answered when its time is up, while its thread goes on."""

    def block(data: Any) -> str:
        gate.wait()
        return "too late"

    peer = await start(block, options={"timeout": 0.02})
    assert await peer.ask() == LATE
    assert not peer.server.in_flight
    gate.go_on.set()
    assert len(peer.replies) == 1


async def test_deadline_passed_in_the_queue(
    start: Start, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """What waited for a thread until its caller gave up is not begun."""
    begun: list[Any] = []

    def block(data: Any) -> None:
        begun.append(data)
        gate.wait()

    peer = await start(block, threads=1)
    peer.send(data=b"1")
    assert await asyncio.to_thread(gate.entered.wait, 10)
    late = peer.send(data=b"2", timeout=0.01)
    await asyncio.sleep(0.02)
    gate.go_on.set()
    await until(lambda: late.outcome)
    assert begun == [1]
    assert decode(peer.replies[-1].error or b"") == LATE
    assert "No thread in time for request it." in caplog.text


async def test_cancelled_in_the_queue(start: Start, gate: Gate) -> None:
    """What was cancelled while it waited for a thread is not begun."""
    begun: list[Any] = []

    def block(data: Any) -> None:
        begun.append(data)
        gate.wait()

    peer = await start(block, threads=1)
    first = peer.send(data=b"1")
    assert await asyncio.to_thread(gate.entered.wait, 10)
    peer.send(data=b"2").cancel()
    gate.go_on.set()
    await until(lambda: first.outcome)
    assert begun == [1]
    assert len(peer.replies) == 1


async def test_cancel(start: Start) -> None:
    """A cancelled delivery cancels its handler and answers nothing, once."""
    cancelled = asyncio.Event()
    entered = asyncio.Event()

    async def hang(data: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    peer = await start(hang)
    delivery = peer.send()
    await entered.wait()
    delivery.cancel()
    delivery.cancel()
    await cancelled.wait()
    assert (peer.replies, delivery.outcome) == ([], "ack")
    assert delivery.abandoned


async def test_handler_that_ignores_its_cancelling(start: Start) -> None:
    """A handler that goes on after its time is answered once, for the time."""
    went_on = asyncio.Event()

    async def stubborn(data: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        went_on.set()
        return "too late"

    peer = await start(stubborn)
    assert await peer.ask(timeout=0.02) == LATE
    await went_on.wait()
    await asyncio.sleep(0)
    assert len(peer.replies) == 1


async def test_name_in_logs(start: Start) -> None:
    """A delivery names its handler and pattern, never its payload."""
    peer = await start(async_handler)
    delivery = peer.send(data=b'"secret"')
    assert (
        repr(delivery) == "<tests.endpoints.test_delivery.async_handler for request it>"
    )
    await until(lambda: delivery.outcome)


# --- streams ----------------------------------------------------------------------


def sync_stream(data: int) -> Iterator[int]:
    """Stream from a thread."""
    yield from range(data)


async def async_stream(data: int) -> AsyncIterator[int]:
    """Stream from the loop."""
    for number in range(data):
        yield number


async def returned_list(data: int) -> Iterable[int]:
    """Return what can be iterated."""
    return range(data)


class Numbers:
    """Async-iterable, and no generator."""

    def __init__(self, count: int) -> None:
        self.numbers = iter(range(count))

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> int:
        try:
            return next(self.numbers)
        except StopIteration:
            raise StopAsyncIteration from None


async def returned_iterator(data: int) -> AsyncIterator[int]:
    """Return what can be iterated on the loop."""
    return Numbers(data)


STREAMS = [sync_stream, async_stream, returned_list, returned_iterator]


@pytest.mark.parametrize("handler", STREAMS)
async def test_stream(start: Start, handler: Any) -> None:
    """Each item is a reply, and the end is one of its own."""
    peer = await start(handler)
    delivery = peer.send(data=b"100")
    await until(lambda: delivery.outcome)
    assert peer.items == [*range(100)]
    assert [reply.last for reply in peer.replies] == [False] * 100 + [True]
    assert (peer.replies[-1].data, peer.replies[-1].error) == (None, None)
    assert delivery.outcome == "ack"


async def test_item_without_a_value(start: Start) -> None:
    """UNSET is an item without a value."""

    async def stream(data: Any) -> AsyncIterator[Any]:
        yield UNSET

    peer = await start(stream)
    await peer.ask()
    assert [(r.data, r.last) for r in peer.replies] == [(None, False), (None, True)]


@pytest.mark.parametrize("handler", STREAMS)
async def test_stream_of_an_event(start: Start, handler: Any) -> None:
    """An event's generator runs to its end, and sends nothing."""
    peer = await start(handler, kind=event_pattern)
    delivery = peer.send(data=b"3", id=UNSET)
    await until(lambda: delivery.outcome)
    assert (peer.replies, delivery.outcome) == ([], "ack")


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), SystemExit("secret")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_failing_stream(
    start: Start, error: BaseException, *, is_async: bool
) -> None:
    """An error ends a stream, after the items that came before it."""

    def stream(data: Any) -> Iterator[int]:
        yield 1
        raise error

    async def astream(data: Any) -> AsyncIterator[int]:
        yield 1
        raise error

    peer = await start(astream if is_async else stream)
    assert await peer.ask() == INTERNAL
    assert peer.items == [1]


async def test_stream_whose_await_was_cancelled(start: Start) -> None:
    """A stream that awaited what somebody else cancelled is answered."""

    async def stream(data: Any) -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    assert await (await start(stream)).ask() == INTERNAL


async def test_item_that_cannot_travel(start: Start) -> None:
    """An item that cannot be encoded ends the stream, and its generator."""
    closed: list[bool] = []

    async def stream(data: Any) -> AsyncIterator[Any]:
        try:
            yield object()
            yield 2
        finally:
            closed.append(True)

    assert await (await start(stream)).ask() == INTERNAL
    assert closed == [True]


async def test_backpressure(start: Start) -> None:
    """The next item is not asked for before the peer has read the last."""
    made: list[int] = []
    gate = asyncio.Event()

    async def stream(data: Any) -> AsyncIterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    peer = await start(stream)

    def respond(reply: Reply) -> Any:
        peer.replies.append(reply)
        return None if reply.last else gate.wait()

    peer.respond = respond
    delivery = peer.send()
    await until(lambda: peer.replies)
    await asyncio.sleep(0.01)
    assert made == [0]
    gate.set()
    await until(lambda: delivery.outcome)
    assert made == [0, 1, 2]


async def test_peer_that_leaves_between_items(start: Start) -> None:
    """A peer that leaves while an item is sent is sent no other."""
    peer = await start(async_stream)
    left: list[Any] = []

    def respond(reply: Reply) -> None:
        peer.replies.append(reply)
        left[0].cancel()

    peer.respond = respond
    left.append(peer.send(data=b"3"))
    await until(lambda: not peer.server.in_flight)
    await asyncio.sleep(0)
    assert peer.items == [0]


async def test_stream_leaves_the_loop_its_turns(start: Start) -> None:
    """A generator that never awaits does not hold the loop."""

    async def endless(data: Any) -> AsyncIterator[int]:
        while True:
            yield 1

    peer = await start(endless)
    delivery = peer.send()
    await until(lambda: len(peer.replies) > 2 * TURN)
    delivery.cancel()
    await until(lambda: not peer.server.in_flight)


@pytest.mark.parametrize("is_async", [False, True])
async def test_timeout_of_an_item(start: Start, gate: Gate, *, is_async: bool) -> None:
    """A stream's timeout bounds each item; one that hangs is answered at once."""

    def stream(data: Any) -> Iterator[int]:
        yield 1
        gate.wait()
        yield 2

    async def astream(data: Any) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    peer = await start(astream if is_async else stream, options={"timeout": 0.05})
    assert await peer.ask() == LATE
    assert peer.items == [1]
    gate.go_on.set()


async def test_callers_patience_does_not_bound_a_stream(start: Start) -> None:
    """The caller's timeout is for each item, and its own business."""

    async def stream(data: Any) -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0.02)
            yield number

    peer = await start(stream)
    assert await peer.ask(timeout=0.03) is UNSET
    assert peer.items == [0, 1, 2]


@pytest.mark.parametrize("is_async", [False, True])
async def test_cancelled_stream(start: Start, *, is_async: bool) -> None:
    """Cancelling a stream closes its generator, whose ``finally`` runs."""
    closed = threading.Event()

    def stream(data: Any) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async def astream(data: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    peer = await start(astream if is_async else stream)
    delivery = peer.send()
    await until(lambda: peer.replies)
    delivery.cancel()
    await until(closed.is_set)
    assert not any(reply.last for reply in peer.replies)


async def test_stream_that_ignores_its_cancelling(start: Start) -> None:
    """A generator that yields on after it was cancelled is closed."""
    closed = asyncio.Event()

    async def stubborn(data: Any) -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            while True:
                yield 2
        finally:
            closed.set()

    peer = await start(stubborn)
    delivery = peer.send()
    await until(lambda: peer.replies)
    delivery.cancel()
    await asyncio.wait_for(closed.wait(), 10)
    assert peer.items == [1]


async def test_sync_stream_under_async_middleware(start: Start) -> None:
    """A sync generator may stand beneath async middleware."""

    def watched(get_response: Any) -> Any:
        async def layer(context: Any) -> Any:
            return await get_response(context)

        return layer

    peer = await start(sync_stream, middleware=(watched,))
    await peer.ask(data=b"3")
    assert peer.items == [0, 1, 2]


async def plain_list() -> Any:
    """Give a list."""
    return [0, 1]


async def plain_iterator() -> Any:
    """Give what is no generator."""
    return Numbers(2)


@pytest.mark.parametrize("items", [plain_list, plain_iterator])
async def test_stream_of_middleware(start: Start, items: Any) -> None:
    """Middleware that answers a stream itself may return anything to iterate."""

    def instead(get_response: Any) -> Any:
        async def layer(context: Any) -> Any:
            return await items()

        return layer

    peer = await start(async_stream, middleware=(instead,))
    await peer.ask()
    assert peer.items == [0, 1]


@pytest.fixture
def database(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Allow the database, without a transaction around the test."""
    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest.mark.usefixtures("database")
async def test_atomic_stream(start: Start) -> None:
    """A stream with ``atomic`` runs whole in one transaction."""

    def stream(data: Any) -> Iterator[bool]:
        for _ in range(3):
            yield transaction.get_connection().in_atomic_block

    peer = await start(stream, options={"atomic": True})
    await peer.ask()
    assert peer.items == [True, True, True]


@pytest.mark.usefixtures("database")
async def test_atomic(start: Start) -> None:
    """So does a request's handler."""

    def inside(data: Any) -> bool:
        return bool(transaction.get_connection().in_atomic_block)

    assert await (await start(inside, options={"atomic": True})).ask() is True


# --- what others observe ----------------------------------------------------------


@pytest.fixture
def observed() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Keep what the signals send."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def keep(name: str) -> Any:
        def receiver(sender: Any, **values: Any) -> None:
            seen.append((name, values))

        return receiver

    signals = {
        "received": message_received,
        "handled": message_handled,
        "failed": message_failed,
    }
    receivers = {name: keep(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    yield seen
    for name, signal in signals.items():
        signal.disconnect(receivers[name])


@BOTH
async def test_signals(start: Start, observed: Any, handler: Any) -> None:
    """Receiving and handling a message is told, with the seconds it took."""
    await (await start(handler)).ask()
    assert [name for name, _ in observed] == ["received", "handled"]
    assert all(values["context"].pattern == "it" for _, values in observed)
    assert 0 <= observed[1][1]["seconds"] < 10


async def test_signal_of_a_failure(start: Start, observed: Any) -> None:
    """A failure is told with its exception."""
    error = ZeroDivisionError()
    await (await start(raising(error, is_async=True))).ask()
    assert [name for name, _ in observed] == ["received", "failed"]
    assert observed[1][1]["exception"] is error


async def test_receiver_that_fails(start: Start) -> None:
    """A receiver that fails does not keep a message from being answered."""

    def fail(sender: Any, **_: Any) -> None:
        raise ZeroDivisionError

    signals = (message_received, message_handled)
    for signal in signals:
        signal.connect(fail)
    try:
        assert await (await start(async_handler)).ask() == 1
    finally:
        for signal in signals:
            signal.disconnect(fail)


async def test_only_some_are_observed(start: Start) -> None:
    """A signal without receivers costs nothing."""
    seen: list[Any] = []

    def keep(sender: Any, **values: Any) -> None:
        seen.append(values)

    message_handled.connect(keep)
    try:
        await (await start(async_handler)).ask()
    finally:
        message_handled.disconnect(keep)
    assert len(seen) == 1


async def test_log_of_messages(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """With ``log_messages`` each message is a line, with how it ended."""
    with caplog.at_level(logging.INFO):
        await (await start(async_handler, log_messages=True)).ask()
        fail = raising(RpcException("no"), is_async=True)
        await (await start(fail, log_messages=True)).ask()
    lines = [record.message for record in caplog.records]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "request it ok",
        "request it RpcException",
    ]
