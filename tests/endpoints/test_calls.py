"""A call, and what becomes of it."""

import asyncio
from typing import Any

import pytest

from django_microservices import (
    ConnectionLost,
    InvalidReply,
    MessageTimeout,
    MessageTooLarge,
    MicroserviceError,
    NoHandler,
    NotConnected,
    RemoteError,
    StreamOverflow,
)
from django_microservices.concurrency.handover import Waiter
from django_microservices.dispatch.errors import TIMED_OUT_ERROR
from django_microservices.endpoints.calls import Call, StreamCall, remote_error
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.unreadable import TOO_LARGE_ERROR
from tests.endpoints.ends import sent


def new_call(kind: type[Call] = Call, **more: Any) -> Any:
    """Make a request that waits."""
    call = kind(Pattern.of("sum"), b"1", "id", client="MATH", **more)
    call.waiter = asyncio.get_running_loop().create_future()
    return call


def new_stream(**more: Any) -> Any:
    """Make a stream that has begun."""
    call = new_call(StreamCall, **more)
    call.begin()
    return call


def item(data: bytes | None, *, last: bool = False) -> Reply:
    """Make one packet of an answer."""
    return Reply("id", data, None, last=last)


# --- requests ---------------------------------------------------------------------


async def test_answer() -> None:
    """A single reply is the answer."""
    call = new_call()
    call.receive(item(b"3", last=True))
    assert await call.waiter == b"3"
    assert call.done


async def test_answer_without_a_value() -> None:
    """A reply without a value is UNSET, JavaScript's undefined."""
    call = new_call()
    call.receive(item(None, last=True))
    assert await call.waiter is UNSET


async def test_last_of_several() -> None:
    """Of several items the last one is the answer."""
    call = new_call()
    for data in (b"1", b"2"):
        call.receive(item(data))
        assert not call.done
    call.receive(item(None, last=True))
    assert await call.waiter == b"2"


async def test_error() -> None:
    """An error reply raises the peer's value."""
    call = new_call()
    call.receive(Reply("id", None, b'{"status":"error","message":"no"}'))
    with pytest.raises(RemoteError) as caught:
        await call.waiter
    assert caught.value.error == {"status": "error", "message": "no"}


async def test_first_outcome_counts() -> None:
    """What comes after the end changes nothing."""
    call = new_call(timeout=1.0)
    call.succeed(b"1")
    call.succeed(b"2")
    call.fail(ConnectionLost("late"))
    call.expire()
    assert await call.waiter == b"1"


@pytest.mark.parametrize("end", ["succeed", "fail"])
async def test_outcome_of_a_cancelled_caller(end: str) -> None:
    """A caller that was cancelled in this very tick takes no outcome."""
    call = new_call()
    call.waiter.cancel()
    getattr(call, end)(ConnectionLost("late"))
    assert call.done


async def test_expired() -> None:
    """A call whose time is up names its pattern, its client and the time."""
    call = sent(new_call(timeout=0.5))
    call.expire()
    with pytest.raises(
        MessageTimeout, match=r"No answer to sum from 'MATH' within 0\.5"
    ):
        await call.waiter


async def test_expired_before_it_was_sent() -> None:
    """One that found no link was not handled, which its error says."""
    call = new_call(timeout=0.5)
    call.expire()
    with pytest.raises(NotConnected, match=r"MATH: no connection within 0\.5 s"):
        await call.waiter


async def test_event_that_the_wire_does_not_take() -> None:
    """Nobody would answer it."""
    event = Call(Pattern.of("noted"), b"1", timeout=0.5, client="MATH")
    assert "'MATH' did not take noted within 0.5 s" in str(event.timed_out())


async def test_abandoned_leaves_its_bucket() -> None:
    """A call that nobody awaits waits for no timer either."""
    call = new_call()
    call.bucket = {call: None}
    call.abandon()
    assert call.bucket == {}


class FakeSession:
    """Keeps what a call tells it."""

    def __init__(self, *, draining: bool) -> None:
        self.pending: dict[Any, Any] = {}
        self.link = self
        self.draining = draining
        self.told: list[Any] = []

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Keep it."""
        self.told.append((id_, answered))

    def stop_if_idle(self) -> None:
        """Keep it."""
        self.told.append("stop")


@pytest.mark.parametrize("draining", [False, True])
async def test_session_is_told(draining: bool) -> None:  # noqa: FBT001
    """A session forgets a call once; one that drains may end with it."""
    call = new_call()
    call.session = session = FakeSession(draining=draining)
    session.pending["id"] = call
    call.succeed(b"1")
    call.abandon()
    assert session.pending == {}
    assert session.told == [("id", True), *["stop"] * draining]


async def test_thread_waits() -> None:
    """A thread's waiter takes outcomes as a future does."""
    call = new_call()
    waiter: Waiter[Any] = Waiter()
    call.waiter = waiter
    call.succeed(b"1")
    assert waiter.result() == b"1"


def test_event() -> None:
    """A message without an id is an event."""
    assert Call(Pattern.of("noted"), b"1").is_event
    assert not Call(Pattern.of("noted"), b"1", "id").is_event


# --- error replies ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "text"), [("MATH", "MATH: sum: "), ("", "The other side: sum: ")]
)
def test_no_handler(client: str, text: str) -> None:
    """A pattern that nobody handles is NoHandler."""
    call = Call(Pattern.of("sum"), b"1", "id", client=client)
    error = remote_error(call, Reply("id", missing=True))
    assert isinstance(error, NoHandler)
    assert str(error).startswith(text)


def test_no_handler_of_a_long_pattern() -> None:
    """The error is short, however long the pattern is."""
    call = Call(Pattern.of("x" * 100_000), b"1", "id", client="MATH")
    assert len(str(remote_error(call, Reply("id", missing=True)))) < 400


@pytest.mark.parametrize("kind", [Call, StreamCall])
async def test_nobody_listens(kind: type[Call]) -> None:
    """What a wire says by itself, without an error's text, ends a call alike."""
    call = new_call(kind)
    if kind is StreamCall:
        call.begin()
    call.receive(Reply("id", missing=True))
    with pytest.raises(NoHandler):
        await (call.take() if kind is StreamCall else call.waiter)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(TIMED_OUT_ERROR, MessageTimeout), (TOO_LARGE_ERROR, MessageTooLarge)],
)
def test_known_errors(text: bytes, kind: type[MicroserviceError]) -> None:
    """What the other side says of time and size is an error of that kind here."""
    call = Call(Pattern.of("sum"), b"1", "id", client="MATH")
    error = remote_error(call, Reply("id", None, text))
    assert type(error) is kind
    assert str(error).startswith("MATH: sum: ")


def test_unreadable_error() -> None:
    """An error that cannot be read is an InvalidReply."""
    error = remote_error(Call(Pattern.of("sum"), b"1", "id"), Reply("id", None, b"{"))
    assert isinstance(error, InvalidReply)


# --- streams ----------------------------------------------------------------------


async def test_items() -> None:
    """Items are taken as they came, then nothing."""
    call = new_stream()
    call.receive(item(b"1"))
    call.receive(item(b"2"))
    assert await call.take() == [b"1", b"2"]
    call.receive(item(b"3", last=True))
    assert await call.take() == [b"3"]
    assert await call.take() == []


async def test_item_without_a_value() -> None:
    """An item without a value is UNSET; an end without one is no item."""
    call = new_stream()
    call.receive(item(None))
    call.receive(item(None, last=True))
    assert await call.take() == [UNSET]
    assert await call.take() == []


async def test_wait_for_an_item() -> None:
    """Who takes waits for the next item."""
    call = new_stream(timeout=10.0)
    taking = asyncio.ensure_future(call.take())
    await asyncio.sleep(0)
    call.receive(item(b"1"))
    assert await taking == [b"1"]


async def test_wait_for_the_end() -> None:
    """Who takes is woken by the end."""
    call = new_stream()
    taking = asyncio.ensure_future(call.take())
    await asyncio.sleep(0)
    call.succeed(None)
    assert await taking == []


async def test_error_after_the_items() -> None:
    """An error is raised after the items that came before it."""
    call = new_stream()
    call.receive(item(b"1"))
    call.receive(Reply("id", None, b'"no"'))
    call.fail(ConnectionLost("late"))
    assert await call.take() == [b"1"]
    with pytest.raises(RemoteError, match="no"):
        await call.take()


async def test_timeout_of_an_item() -> None:
    """The timeout bounds the wait for each item."""
    call = sent(new_stream(timeout=0.02))
    call.receive(item(b"1"))
    assert await call.take() == [b"1"]
    with pytest.raises(MessageTimeout):
        await call.take()
    assert call.done


async def test_overflow() -> None:
    """Where nothing holds the sender back, a reader too slow loses the stream."""
    call = new_stream()
    call.high_water = 2
    call.receive(item(b"1"))
    call.receive(item(b"2"))
    assert await call.take() == [b"1", b"2"]
    with pytest.raises(StreamOverflow, match="2 items behind"):
        await call.take()


async def test_holding_back() -> None:
    """The sender is held back once, until the reader has taken what is there."""
    done: list[str] = []
    call = new_stream()
    call.high_water = 2
    call.pause, call.resume = lambda: done.append("pause"), lambda: done.append("go")
    for data in (b"1", b"2", b"3"):
        call.receive(item(data))
    assert done == ["pause"]
    assert await call.take() == [b"1", b"2", b"3"]
    assert done == ["pause", "go"]
