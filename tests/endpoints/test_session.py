"""One open link of a client, and the calls that wait on it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from django_microservices import ConnectionLost, MessageTooLarge, NotConnected
from django_microservices.endpoints.calls import Call
from django_microservices.endpoints.session import Session
from django_microservices.wire.messages import Reply, new_id
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status
from tests.endpoints.ends import FakeWire, until


class Heard:
    """What a session told its owner."""

    def __init__(self) -> None:
        self.reasons: list[Any] = []
        self.statuses: list[Status] = []

    def retired(self, _: Session, reason: BaseException | None) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


@pytest.fixture
def heard() -> Heard:
    """Give who hears."""
    return Heard()


@pytest.fixture
def wire() -> FakeWire:
    """Give a wire on which all is well."""
    return FakeWire()


def new_session(wire: FakeWire, heard: Heard) -> Session:
    """Begin a session."""
    return Session(
        wire, name="tested", retired=heard.retired, changed=heard.statuses.append
    )


@pytest_asyncio.fixture
async def session(wire: FakeWire, heard: Heard) -> AsyncIterator[Session]:
    """Give one that is open."""
    session = new_session(wire, heard)
    await session.opened
    yield session
    session.stop()
    await asyncio.wait([session.task])


def new_call() -> Call:
    """Make a request."""
    call = Call(Pattern.of("sum"), b"1", new_id())
    call.waiter = asyncio.get_running_loop().create_future()
    return call


# --- calls ------------------------------------------------------------------------


async def test_answer(session: Session, wire: FakeWire) -> None:
    """The reply with a call's id is its answer; then the link forgets it."""
    call = new_call()
    session.send(call)
    wire.link.answer(b"3")
    assert await call.waiter == b"3"
    assert session.pending == {}
    assert wire.link.forgotten == [(call.id, True)]


@pytest.mark.parametrize("id_", ["unknown", 7, None, ["list"]])
async def test_unknown_answer(session: Session, wire: FakeWire, id_: Any) -> None:
    """A reply that nobody awaits, whatever its id, is counted and does no harm."""
    wire.link.receive(Reply(id_, b"1"))
    assert session.ignored == 1


async def test_failing_publish(session: Session, wire: FakeWire) -> None:
    """What the wire raises goes to the caller, and nothing stays behind."""
    wire.link.answer_with = MessageTooLarge("too large")
    call = new_call()
    session.send(call)
    with pytest.raises(MessageTooLarge):
        await call.waiter
    assert session.pending == {}


async def test_publish_that_is_awaited(session: Session, wire: FakeWire) -> None:
    """A wire that takes its time is awaited; the answer may come meanwhile."""
    taken = asyncio.Event()
    wire.link.answer_with = taken.wait
    call = new_call()
    session.send(call)
    wire.link.answer(b"1")
    assert await call.waiter == b"1"
    taken.set()


async def test_publish_that_fails_later(session: Session, wire: FakeWire) -> None:
    """A message that the wire does not take fails its call."""

    async def refuse() -> None:
        raise ConnectionLost("not confirmed")

    wire.link.answer_with = refuse
    call = new_call()
    session.send(call)
    with pytest.raises(ConnectionLost, match="not confirmed"):
        await call.waiter


async def test_publish_that_is_cancelled(session: Session, wire: FakeWire) -> None:
    """A confirmation that is cancelled leaves the call waiting for its answer."""
    future = asyncio.get_running_loop().create_future()
    wire.link.answer_with = lambda: future
    call = new_call()
    session.send(call)
    future.cancel()
    await asyncio.sleep(0)
    assert not call.done
    wire.link.answer()
    await call.waiter


async def test_call_that_nobody_awaits(session: Session, wire: FakeWire) -> None:
    """An abandoned call is forgotten as unanswered, once."""
    call = new_call()
    session.send(call)
    call.abandon()
    call.abandon()
    assert wire.link.forgotten == [(call.id, False)]


# --- the end ----------------------------------------------------------------------


async def test_link_lost(session: Session, wire: FakeWire, heard: Heard) -> None:
    """When the link is lost every pending call fails with the reason."""
    calls = [new_call() for _ in range(100)]
    for call in calls:
        session.send(call)
    wire.link.lose(ConnectionLost("reset by peer"))
    await asyncio.wait([session.task])
    errors = [call.waiter.exception() for call in calls]
    assert {type(error) for error in errors} == {ConnectionLost}
    assert {str(error) for error in errors} == {"tested: reset by peer"}
    assert session.pending == {}
    assert [str(reason) for reason in heard.reasons] == ["reset by peer"]
    assert wire.link.left


async def test_link_lost_by_size(session: Session, wire: FakeWire) -> None:
    """Where it is not known whose answer was too large, all are told of that."""
    call = new_call()
    session.send(call)
    wire.link.lose(MessageTooLarge("over the limit"))
    with pytest.raises(MessageTooLarge, match="tested: over the limit"):
        await call.waiter


async def test_link_that_ends_without_a_reason(
    session: Session, wire: FakeWire
) -> None:
    """A link that just ends fails its calls too."""
    call = new_call()
    session.send(call)
    wire.link.closed.set_result(None)
    with pytest.raises(ConnectionLost, match="the link ended"):
        await call.waiter


async def test_stop(session: Session, wire: FakeWire, heard: Heard) -> None:
    """Stopping fails what waits and leaves the block; again does nothing."""
    call = new_call()
    session.send(call)
    session.stop()
    session.stop()
    await asyncio.wait([session.task])
    with pytest.raises(ConnectionLost, match="the client was closed"):
        await call.waiter
    assert wire.link.left
    assert len(heard.reasons) == 1


async def test_cancelled_task(session: Session, wire: FakeWire) -> None:
    """A session whose task is cancelled, at a loop's end say, fails what waits."""
    call = new_call()
    session.send(call)
    session.task.cancel()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        await call.waiter
    assert wire.link.left


# --- opening ----------------------------------------------------------------------


async def test_refused(heard: Heard) -> None:
    """What prevents the link is what ``opened`` raises."""
    session = new_session(FakeWire(NotConnected("nobody there")), heard)
    with pytest.raises(NotConnected, match="nobody there"):
        await session.opened
    assert [type(reason) for reason in heard.reasons] == [NotConnected]


async def test_broken_transport(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """An error that no transport should raise is logged, and ends the waiting too."""
    with caplog.at_level(logging.ERROR):
        session = new_session(FakeWire(ZeroDivisionError("by zero")), heard)
        with pytest.raises(NotConnected, match="ZeroDivisionError: by zero"):
            await session.opened
    assert "The transport of client 'tested' failed." in caplog.text


async def test_stop_while_opening(heard: Heard) -> None:
    """Stopping cancels the opening."""
    wire = FakeWire(asyncio.Event())
    session = new_session(wire, heard)
    await until(lambda: wire.attempts)
    session.stop()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        await session.opened
    await asyncio.wait([session.task])
    assert (wire.cancelled, wire.links) == (1, [])


async def test_nobody_waits_for_the_opening(wire: FakeWire) -> None:
    """A session may open although who waited for it has gone."""
    session = Session(wire, name="tested")
    session.opened.cancel()
    await until(lambda: wire.links)
    session.stop()
    await asyncio.wait([session.task])
    assert wire.link.left


# --- what the wire reports --------------------------------------------------------


async def test_status(session: Session, wire: FakeWire, heard: Heard) -> None:
    """What the wire reports is passed on."""
    wire.link.changed(Status.BLOCKED)
    assert heard.statuses == [Status.BLOCKED]


async def test_unheard(wire: FakeWire) -> None:
    """Without an owner nobody is told."""
    session = Session(wire, name="tested")
    await session.opened
    wire.link.changed(Status.BLOCKED)
    session.stop()
    await asyncio.wait([session.task])


async def test_goodbye_of_an_idle_link(
    session: Session, wire: FakeWire, heard: Heard
) -> None:
    """A server that says goodbye is left at once when nothing waits."""
    wire.link.say_goodbye()
    assert heard.reasons == [None]
    await asyncio.wait([session.task])
    assert wire.link.left


async def test_goodbye_of_a_busy_link(
    session: Session, wire: FakeWire, heard: Heard
) -> None:
    """After the goodbye, what waits is still answered; then the link is left."""
    first, second = new_call(), new_call()
    session.send(first)
    session.send(second)
    wire.link.say_goodbye()
    assert heard.reasons == [None]
    wire.link.answer(b"2")
    assert await second.waiter == b"2"
    assert not session.task.done()
    wire.link.receive(Reply(first.id, b"1"))
    assert await first.waiter == b"1"
    await asyncio.wait([session.task])
    assert wire.link.left
