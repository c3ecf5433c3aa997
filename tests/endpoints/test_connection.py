"""A client on one loop: connecting lazily, and again for ever."""

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from django_microservices import (
    ConnectionLost,
    MessageTimeout,
    NotConnected,
    StreamOverflow,
    TransportRefused,
)
from django_microservices.endpoints import connection as connection_module
from django_microservices.endpoints.backoff import Backoff
from django_microservices.endpoints.calls import Call, StreamCall
from django_microservices.endpoints.connection import STREAM_BUFFER, Connection
from django_microservices.endpoints.listeners import Listeners
from django_microservices.wire.messages import UNSET, Message, Reply, new_id
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status, StatusStream
from tests.endpoints.ends import (
    PATIENCE,
    FakeLink,
    FakeStreamWire,
    FakeWire,
    grown,
    until,
)

Make = Callable[[FakeWire], Connection]


@pytest.fixture
def events() -> list[Any]:
    """Keep what listeners hear."""
    return []


@pytest_asyncio.fixture
async def make(events: list[Any]) -> AsyncIterator[Make]:
    """Give a function that makes connections, which are closed in the end."""
    made: list[Connection] = []

    def make(wire: FakeWire) -> Connection:
        listeners = Listeners()
        listeners.add("connect", lambda: events.append("connect"))
        listeners.add("disconnect", lambda: events.append("disconnect"))
        listeners.add("error", lambda error: events.append(str(error)))
        loop = asyncio.get_running_loop()
        connection = Connection(
            wire, loop, name="tested", listeners=listeners, status=StatusStream()
        )
        made.append(connection)
        return connection

    yield make
    for connection in made:
        await connection.close()


@pytest.fixture
def wire() -> FakeWire:
    """Give a wire on which all is well."""
    return FakeWire()


@pytest_asyncio.fixture
async def connection(make: Make, wire: FakeWire) -> Connection:
    """Give a connection over it."""
    return make(wire)


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every pause be the longest, which makes it predictable."""
    monkeypatch.setattr(random, "uniform", lambda least, most: most)


def new_call(timeout: float | None = PATIENCE, kind: type[Call] = Call) -> Any:
    """Make a request."""
    call = kind(Pattern.of("sum"), b"1", new_id(), timeout=timeout)
    call.waiter = asyncio.get_running_loop().create_future()
    return call


def new_event(timeout: float | None = PATIENCE) -> Call:
    """Make an event."""
    return Call(Pattern.of("noted"), b"1", UNSET, timeout=timeout)


def ids(messages: Iterable[Message]) -> list[Any]:
    """Tell requests apart."""
    return [message.id for message in messages]


async def connected(connection: Connection) -> None:
    """Connect."""
    await connection.connected(new_event())


# --- connecting -------------------------------------------------------------------


async def test_lazy(connection: Connection, wire: FakeWire) -> None:
    """Nothing is opened before the first call."""
    await asyncio.sleep(0)
    assert wire.attempts == []
    assert connection.status == Status.DISCONNECTED


async def test_first_calls_share_one_link(
    connection: Connection, wire: FakeWire, events: list[Any]
) -> None:
    """Calls made while connecting wait for one link (nest#13880)."""
    calls = [new_call() for _ in range(50)]
    for call in calls:
        connection.begin(call)
    await until(lambda: wire.links and len(wire.link.published) == 50)
    assert len(wire.attempts) == 1
    assert ids(wire.link.published) == ids(calls)
    assert connection.status == Status.CONNECTED
    assert events == ["connect"]


async def test_first_caller_cancelled(connection: Connection, wire: FakeWire) -> None:
    """The first caller's leaving does not disturb the others."""
    first, second = new_call(), new_call()
    connection.begin(first)
    connection.begin(second)
    first.close(answered=False)
    await until(lambda: wire.links and wire.link.published)
    assert ids(wire.link.published) == [second.id]


async def test_done_call_is_not_sent(connection: Connection, wire: FakeWire) -> None:
    """A call that ended before it was handed over is not sent."""
    call = new_call()
    call.close(answered=False)
    connection.begin(call)
    await asyncio.sleep(0)
    assert wire.attempts == []


@pytest.mark.parametrize("kind", [Call, StreamCall])
async def test_remaining_time_travels(make: Make, kind: type[Call]) -> None:
    """Of a call that waited for its link, what the caller will still wait is said."""
    opening = asyncio.Event()
    wire = FakeWire(opening)
    connection = make(wire)
    loop = asyncio.get_running_loop()
    calls = [new_call(60.0, kind), new_call(None, kind)]
    for call in calls:
        connection.send(call)
    began = loop.time()
    await until(lambda: loop.time() > began + 0.02)
    waited = loop.time() - began
    opening.set()
    await until(lambda: wire.links and len(wire.link.published) == 2)
    late, patient = wire.link.published
    assert late.timeout is not None
    assert 0 < late.timeout <= 60.0 - waited
    assert patient.timeout is None
    assert [call.timeout for call in calls] == [60.0, None]
    connection.send(prompt := new_call(60.0, kind))
    assert wire.link.published[-1] is prompt


async def test_nobody_waits_within_one_process(make: Make) -> None:
    """A wire in one process gets the call as it is."""
    wire = FakeWire()
    wire.in_process = True
    connection = make(wire)
    connection.send(call := new_call())
    await until(lambda: wire.links and wire.link.published)
    assert wire.link.published == [call]
    assert wire.link.published[0] is call


async def test_waiting_calls_fail_with_the_attempt(
    make: Make, events: list[Any]
) -> None:
    """An attempt that fails fails the calls that waited for it, each with its error."""
    connection = make(FakeWire(NotConnected("nobody there")))
    calls = [new_call(), new_call()]
    for call in calls:
        connection.begin(call)
    errors = await asyncio.gather(*(c.waiter for c in calls), return_exceptions=True)
    assert [type(error) for error in errors] == [NotConnected, NotConnected]
    assert errors[0] is not errors[1]
    assert str(errors[0]) == "tested: nobody there"
    assert connection.status == Status.RECONNECTING
    assert events == ["nobody there"]


async def test_os_error(make: Make) -> None:
    """What the system refuses arrives as NotConnected."""
    connection = make(FakeWire(OSError("no route")))
    call = new_call()
    connection.begin(call)
    with pytest.raises(NotConnected, match="tested: no route"):
        await call.waiter


async def test_refusal_for_good(make: Make) -> None:
    """After a permanent refusal nothing is tried until the next call."""
    wire = FakeWire(TransportRefused("bad certificate"))
    connection = make(wire)
    call = new_call()
    connection.begin(call)
    with pytest.raises(TransportRefused, match="tested: bad certificate"):
        await call.waiter
    assert connection.status == Status.CLOSED
    again = new_call()
    connection.begin(again)
    await until(lambda: wire.links and wire.link.published)
    wire.link.answer()
    await again.waiter
    assert len(wire.attempts) == 2


async def test_timeout_while_connecting(make: Make) -> None:
    """A call's time runs while there is no link."""
    connection = make(FakeWire(asyncio.Event()))
    call = new_call(timeout=0.02)
    connection.begin(call)
    with pytest.raises(NotConnected, match=r"no connection within 0.02 s"):
        await call.waiter


async def test_failing_status_listener(
    connection: Connection, wire: FakeWire, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails while connecting, no call waits for ever."""

    def fail(status: Status) -> None:
        if status is Status.CONNECTED:
            raise ZeroDivisionError

    connection.status.listen(fail)
    call = new_call(timeout=None)
    connection.begin(call)
    with pytest.raises(NotConnected):
        await call.waiter
    with pytest.raises(ZeroDivisionError):
        await connection._task  # type: ignore[misc]


# --- connecting again -------------------------------------------------------------


async def test_connects_again(
    connection: Connection,
    wire: FakeWire,
    events: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A link that is lost is made anew, without a call."""
    await connected(connection)
    with caplog.at_level(logging.WARNING):
        wire.link.lose(ConnectionLost("cut"))
        await until(lambda: len(wire.links) == 2)
    await until(lambda: connection.status == Status.CONNECTED)
    assert events == ["connect", "cut", "disconnect", "connect"]
    assert "Client 'tested': cut" in caplog.text


async def test_tries_for_ever(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It connects after however many failures."""
    monkeypatch.setattr(connection_module, "Backoff", partial(Backoff, base=0.0001))
    wire = FakeWire(*(NotConnected("down") for _ in range(8)))
    connection = make(wire)
    connection.begin(first := new_call())
    with pytest.raises(NotConnected):
        await first.waiter
    await until(lambda: wire.links)
    assert len(wire.attempts) == 9


@pytest.mark.usefixtures("longest")
@pytest.mark.usefixtures("longest")
async def test_call_brings_the_attempt_forward(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls made while it waits bring the next attempt forward, once per interval."""
    monkeypatch.setattr(connection_module, "ATTEMPT_INTERVAL", 0.1)
    monkeypatch.setattr(connection_module, "CLIENT_CAP", 60.0)
    monkeypatch.setattr(connection_module, "Backoff", partial(Backoff, base=60.0))
    wire = FakeWire(*(NotConnected("down") for _ in range(4)))
    connection = make(wire)
    opened = asyncio.ensure_future(until(lambda: wire.links))
    while not opened.done():
        connection.begin(call := new_call())
        await asyncio.wait([call.waiter, opened], return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    gaps = [second - first for first, second in itertools.pairwise(wire.attempts)]
    assert len(gaps) == 4
    assert all(0.09 < gap < 30.0 for gap in gaps)


@pytest.mark.usefixtures("longest")
async def test_server_that_hangs_up(make: Make) -> None:
    """Where each link is lost as soon as it is there, the waits grow all the same."""
    wire = FakeWire()
    connection = make(wire)
    await connected(connection)
    for number in range(1, 4):
        wire.link.lose()
        await grown(wire.links, number)
        await until(lambda: connection.session)
    gaps = [second - first for first, second in itertools.pairwise(wire.attempts)]
    assert gaps[0] >= 0.05
    assert gaps[1] >= 0.1
    assert gaps[2] >= 0.2


async def test_waits_are_short_after_a_steady_link(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a link that held for a while the waits begin short again."""
    held: list[float] = []
    monkeypatch.setattr(Backoff, "held", lambda self, seconds: held.append(seconds))
    wire = FakeWire()
    connection = make(wire)
    await connected(connection)
    wire.link.lose()
    await until(lambda: len(wire.links) == 2)
    assert [seconds > 0 for seconds in held] == [True]


async def test_goodbye(
    connection: Connection, wire: FakeWire, events: list[Any]
) -> None:
    """After a goodbye new calls use a new link, and what waits uses the old one."""
    await connected(connection)
    old = wire.link
    connection.begin(first := new_call())
    old.say_goodbye()
    assert connection.status == Status.RECONNECTING
    connection.begin(second := new_call())
    await until(lambda: len(wire.links) == 2 and wire.link.published)
    assert ids(old.published) == [first.id]
    assert ids(wire.link.published) == [second.id]
    old.answer(b"1")
    wire.link.answer(b"2")
    assert (await first.waiter, await second.waiter) == (b"1", b"2")
    await until(lambda: old.left)
    assert events == ["connect", "disconnect", "connect"]
    assert connection.session is not None


async def test_late_goodbye(connection: Connection, wire: FakeWire) -> None:
    """A second goodbye of the old link leaves the new one alone."""
    await connected(connection)
    old = wire.link
    connection.begin(new_call())
    old.say_goodbye()
    await until(lambda: connection.session)
    session = connection.session
    old.say_goodbye()
    assert connection.session is session


async def test_link_gone_as_it_came(make: Make) -> None:
    """A link that is lost in the tick in which it came is not used."""

    class Brief(FakeWire):
        """Says goodbye in its first tick."""

        @asynccontextmanager
        async def connect(self, *args: Any) -> AsyncIterator[FakeLink]:
            async with super().connect(*args) as link:
                if len(self.links) == 1:
                    asyncio.get_running_loop().call_soon(link.say_goodbye)
                yield link

    wire = Brief()
    connection = make(wire)
    connection.begin(call := new_call())
    await until(lambda: len(wire.links) == 2 and wire.link.published)
    wire.link.answer()
    await call.waiter


async def test_wire_reports(connection: Connection, wire: FakeWire) -> None:
    """What the wire reports is the status."""
    await connected(connection)
    wire.link.changed(Status.BLOCKED)
    assert connection.status == Status.BLOCKED


# --- events -----------------------------------------------------------------------


async def test_event(connection: Connection, wire: FakeWire) -> None:
    """An event is published on the link, which is made for it."""
    event = new_event()
    await connection.emit(event)
    await connection.emit(event)
    assert wire.link.published == [event, event]


async def test_confirmed_event(connection: Connection, wire: FakeWire) -> None:
    """Where the wire confirms, that is awaited."""
    await connected(connection)
    confirmed = asyncio.Event()
    wire.link.answer_with = confirmed.wait
    sending = asyncio.ensure_future(connection.emit(new_event()))
    await until(lambda: wire.link.published)
    assert not sending.done()
    confirmed.set()
    await sending


async def test_event_that_is_not_taken(connection: Connection, wire: FakeWire) -> None:
    """A wire that does not take an event in time is a MessageTimeout."""
    await connected(connection)
    wire.link.answer_with = asyncio.Event().wait
    with pytest.raises(MessageTimeout):
        await connection.emit(new_event(timeout=0.02))


async def test_event_without_a_link(make: Make) -> None:
    """An event that finds no link raises the reason."""
    with pytest.raises(NotConnected, match="nobody there"):
        await make(FakeWire(NotConnected("nobody there"))).emit(new_event())


async def test_event_that_waits_for_ever(connection: Connection) -> None:
    """Without a timeout an event waits for the link."""
    await connection.emit(new_event(timeout=None))


async def test_event_cancelled_while_connecting(make: Make) -> None:
    """Who leaves while connecting is not waited for."""
    connection = make(FakeWire(asyncio.Event()))
    sending = asyncio.ensure_future(connection.emit(new_event()))
    await until(lambda: connection._waiting)
    sending.cancel()
    await asyncio.wait([sending])
    assert connection._waiting == {}


async def test_connected_already(connection: Connection, wire: FakeWire) -> None:
    """Asking for the link again gives the same."""
    first = await connection.connected(new_event())
    assert await connection.connected(new_event()) is first
    assert len(wire.attempts) == 1


# --- streams ----------------------------------------------------------------------


async def test_stream_on_the_common_link(
    connection: Connection, wire: FakeWire
) -> None:
    """Where the wire has no stream links, a stream uses the common one."""
    call = new_call(kind=StreamCall)
    await connection.open_stream(call)
    await until(lambda: wire.links and wire.link.published)
    wire.link.answer(b"1", last=False)
    assert await call.take() == [b"1"]
    connection.close_stream(call)
    assert wire.link.forgotten == [(call.id, False)]
    assert connection.session is not None


async def test_overflow(connection: Connection, wire: FakeWire) -> None:
    """A stream that cannot be held back overflows, and is cancelled."""
    call = new_call(kind=StreamCall)
    await connection.open_stream(call)
    await until(lambda: wire.links and wire.link.published)
    for _ in range(1025):
        wire.link.answer(b"1", last=False)
    assert len(await call.take()) == 1024
    with pytest.raises(StreamOverflow, match="1024 items behind"):
        await call.take()
    assert wire.link.forgotten == [(call.id, False)]


async def test_stream_link(make: Make) -> None:
    """A stream has a link of its own, which ends with it."""
    wire = FakeStreamWire()
    connection = make(wire)
    call = new_call(kind=StreamCall)
    await connection.open_stream(call)
    assert connection.session is None
    wire.link.answer(b"1", last=False)
    wire.link.answer(None)
    assert await call.take() == [b"1"]
    assert await call.take() == []
    connection.close_stream(call)
    await until(lambda: wire.link.left)
    assert wire.link.forgotten == [(call.id, True)]


async def test_stream_link_holds_back(make: Make) -> None:
    """A slow reader stops the reading of the link, and goes on when it has read."""
    wire = FakeStreamWire()
    connection = make(wire)
    call = new_call(kind=StreamCall)
    await connection.open_stream(call)
    for _ in range(STREAM_BUFFER + 5):
        wire.link.answer(b"1", last=False)
    assert wire.link.reading == ["pause"]
    assert len(await call.take()) == STREAM_BUFFER + 5
    assert wire.link.reading == ["pause", "resume"]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (NotConnected("nobody there"), NotConnected),
        (OSError("no route"), NotConnected),
        (TransportRefused("bad certificate"), TransportRefused),
    ],
)
async def test_stream_link_refused(
    make: Make, outcome: Exception, error: type[Exception]
) -> None:
    """A stream without a link raises the reason."""
    connection = make(FakeStreamWire(outcome))
    call = new_call(kind=StreamCall)
    with pytest.raises(error, match=str(outcome)):
        await connection.open_stream(call)
    connection.close_stream(call)


async def test_stream_timeout_while_opening(make: Make) -> None:
    """A stream's link that takes too long is given up."""
    wire = FakeStreamWire(asyncio.Event())
    connection = make(wire)
    with pytest.raises(NotConnected):
        await connection.open_stream(new_call(timeout=0.02, kind=StreamCall))
    await until(lambda: wire.cancelled)


async def test_stream_cancelled_while_opening(make: Make) -> None:
    """Who leaves while a stream opens leaves no link behind."""
    wire = FakeStreamWire(asyncio.Event())
    connection = make(wire)
    opening = asyncio.ensure_future(connection.open_stream(new_call(kind=StreamCall)))
    await until(lambda: wire.attempts)
    opening.cancel()
    await until(lambda: wire.cancelled)
    assert opening.cancelled()


# --- the end ----------------------------------------------------------------------


async def test_close(connection: Connection, wire: FakeWire, events: list[Any]) -> None:
    """Closing leaves the link, and fails what waits."""
    await connected(connection)
    connection.begin(call := new_call())
    await connection.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        await call.waiter
    assert wire.link.left
    assert connection.status == Status.CLOSED
    assert events == ["connect", "disconnect"]


async def test_close_while_connecting(make: Make) -> None:
    """Closing gives up the attempt; the calls that waited for it fail."""
    wire = FakeWire(asyncio.Event())
    connection = make(wire)
    connection.begin(call := new_call(timeout=None))
    await until(lambda: wire.attempts)
    await connection.close()
    with pytest.raises(NotConnected, match="the client was closed"):
        await call.waiter
    assert wire.cancelled == 1


async def test_call_after_close(connection: Connection, wire: FakeWire) -> None:
    """What comes after the close fails at once, and opens nothing."""
    await connection.close()
    connection.begin(call := new_call(timeout=None))
    with pytest.raises(NotConnected, match="the client was closed"):
        await call.waiter
    assert wire.attempts == []


async def test_close_of_streams(make: Make) -> None:
    """Closing ends streams too."""
    wire = FakeStreamWire()
    connection = make(wire)
    call = new_call(kind=StreamCall)
    await connection.open_stream(call)
    await connection.close()
    with pytest.raises(ConnectionLost):
        await call.take()
    assert wire.link.left


async def test_reply_after_the_end(connection: Connection, wire: FakeWire) -> None:
    """A reply that comes late is ignored."""
    await connected(connection)
    connection.begin(call := new_call(timeout=0.02))
    with pytest.raises(MessageTimeout):
        await call.waiter
    session = connection.session
    assert session is not None
    wire.link.receive(Reply(call.id, b"1"))
    assert session.ignored == 1
