"""The end that answers: its life, and to whom it hands a message."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import (
    UNSET,
    NotConnected,
    TransportRefused,
    event_pattern,
    message_pattern,
)
from django_microservices.endpoints import backoff, routing
from django_microservices.endpoints.config import ServerConfig
from django_microservices.endpoints.server import Server
from django_microservices.transports.redelivery import GIVEN_BACK
from django_microservices.wire.messages import Message, Reply
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status
from tests.endpoints.ends import (
    FakeListener,
    calling,
    grown,
    handlers_of,
    running,
    server_of,
    serving,
    until,
)

heard: list[Any] = []


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    heard.clear()


@message_pattern("double")
def double(data: int) -> int:
    """Double a number."""
    heard.append(data)
    return 2 * data


@event_pattern("noted")
async def first(data: Any) -> None:
    """Take an event."""
    heard.append(("first", data))


@event_pattern("noted")
def second(data: Any) -> None:
    """Take the same event."""
    heard.append(("second", data))


@event_pattern("single")
def single(data: Any) -> None:
    """Take an event alone."""
    heard.append(data)


@event_pattern("noted")
def failing(data: Any) -> None:
    """Fail to take an event."""
    raise ZeroDivisionError


HANDLERS = (double, first, second, single)


class Peer:
    """Hands messages to a server, and keeps its replies."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.replies: list[Reply] = []

    def send(self, pattern: Any, data: bytes = b"1", id_: Any = "id") -> Any:
        """Deliver a request, or with ``UNSET`` an event."""
        message = Message(Pattern.of(pattern), data, id_)
        return self.server.deliver(message, self.replies.append)


@pytest.fixture
def listener() -> FakeListener:
    """Give a wire on which all is well."""
    return FakeListener()


@pytest.fixture
def server(listener: FakeListener) -> Server:
    """Give a server that is not started."""
    return server_of(listener, *HANDLERS)


# --- life -------------------------------------------------------------------------


async def test_start(server: Server, listener: FakeListener) -> None:
    """Started means that messages are consumed; stopped that the block is left."""
    events: list[str] = []
    server.on("connect", lambda: events.append("connect"))
    server.on("disconnect", lambda: events.append("disconnect"))
    assert (server.address, server.is_ready) == ("closed", False)
    async with running(server):
        ready: bool = server.is_ready
        assert ready
        assert server.status == Status.CONNECTED
        assert (server.address, server.unwrap()) == ("nowhere", "the driver")
    assert listener.intake.left
    assert server.status == Status.CLOSED
    assert not server.is_ready
    assert events == ["connect", "disconnect"]


async def test_async_settings(listener: FakeListener) -> None:
    """Settings that are awaitable are awaited."""

    async def load() -> ServerConfig:
        return ServerConfig(listener, handlers_of(*HANDLERS))

    async with running(Server("tested", load)):
        assert listener.entered == 1


async def test_started_again(server: Server, listener: FakeListener) -> None:
    """A server that was stopped can be started again."""
    for _ in range(2):
        async with running(server):
            assert server.is_ready
    assert listener.entered == 2


async def test_unwrap_before_start(server: Server) -> None:
    """Before the start there is no driver."""
    with pytest.raises(NotConnected, match="'tested' is not listening"):
        server.unwrap()


async def test_stop_and_drain_before_start(server: Server) -> None:
    """What never started ends without a word."""
    await server.drain()
    await server.stop()
    await server.ended()


async def test_start_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    """A wire that is not there yet is tried until it is."""
    errors: list[str] = []
    listener = FakeListener(NotConnected("not yet"), OSError("nor now"))
    server = server_of(listener)
    server.on("error", lambda error: errors.append(str(error)))
    async with running(server):
        assert listener.entered == 3
    assert errors == ["not yet", "nor now"]
    assert "Server 'tested': not yet" in caplog.text


async def test_refused_start() -> None:
    """A refusal for good ends the start."""
    server = server_of(FakeListener(TransportRefused("port taken")))
    with pytest.raises(TransportRefused, match="port taken"):
        async with running(server):
            pass
    assert server.status == Status.CLOSED


async def test_broken_transport(caplog: pytest.LogCaptureFixture) -> None:
    """An error that no transport should raise ends the start, and is logged."""
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.ERROR):
        async with running(server_of(FakeListener(ZeroDivisionError()))):
            pass
    assert "The transport of server 'tested' failed." in caplog.text


async def test_stop_while_connecting() -> None:
    """A start that is still going on can be given up."""
    listener = FakeListener(asyncio.Event())
    server = server_of(listener)
    starting = asyncio.ensure_future(
        server.start(lambda _: (None, None))  # type: ignore[arg-type, return-value]
    )
    await until(lambda: listener.entered)
    await server.stop()
    assert server.status == Status.CLOSED
    assert (await asyncio.wait([starting]))[0].pop().cancelled()


async def test_consumes_again(server: Server, listener: FakeListener) -> None:
    """When the wire ends it begins again."""
    async with running(server):
        listener.intake.closed.set_result(NotConnected("broker gone"))
        await until(lambda: len(listener.intakes) == 2)
        await until(lambda: server.is_ready)
        listener.intake.closed.set_result(None)
        await until(lambda: len(listener.intakes) == 3)
    assert all(intake.left for intake in listener.intakes)


async def test_gives_up_after_its_attempts(caplog: pytest.LogCaptureFixture) -> None:
    """With ``retry_attempts`` it gives up after so many in a row."""
    errors = [NotConnected(f"down {number}") for number in range(5)]
    listener = FakeListener(None, *errors, retry_attempts=3, retry_delay=0.001)
    server = server_of(listener)
    async with running(server):
        listener.intake.closed.set_result(None)
        await asyncio.wait_for(server.ended(), 10)
        assert server.status == Status.CLOSED
    assert listener.entered == 4
    assert "Server 'tested' gave up: down 2" in caplog.text


async def test_no_attempts() -> None:
    """Nest's default, no attempt at all, gives up at once."""
    listener = FakeListener(NotConnected("down"), retry_attempts=0)
    with pytest.raises(NotConnected, match="down"):
        async with running(server_of(listener)):
            pass
    assert listener.entered == 1


async def test_counts_anew_after_a_steady_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listener that held for a while has all its attempts again."""
    monkeypatch.setattr(backoff, "STEADY", 0.0)
    listener = FakeListener(retry_attempts=1, retry_delay=0.001)
    async with running(server_of(listener)):
        for number in range(1, 4):
            listener.intake.closed.set_result(None)
            await grown(listener.intakes, number)


async def test_wire_reports(server: Server, listener: FakeListener) -> None:
    """What the wire reports is the status, and decides whether it is ready."""
    async with running(server):
        listener.intake.changed(Status.BLOCKED)
        assert server.status == Status.BLOCKED
        assert not server.is_ready
        listener.intake.changed(Status.UNBLOCKED)
        assert server.is_ready


# --- draining ---------------------------------------------------------------------


@message_pattern("hold")
async def hold(data: Any) -> str:
    """Answer when it is released."""
    heard.append("held")
    await release[0].wait()
    return "released"


release: list[asyncio.Event] = []


@pytest.fixture
def released() -> asyncio.Event:
    """Give what releases ``hold``."""
    release[:] = [asyncio.Event()]
    return release[0]


async def test_drain(listener: FakeListener, released: asyncio.Event) -> None:
    """Draining is not ready, takes nothing new, and ends when all is answered."""
    server = server_of(listener, hold)
    async with running(server):
        peer = Peer(server)
        peer.send("hold")
        draining = asyncio.ensure_future(server.drain())
        await until(lambda: listener.intake.paused)
        assert server.status == Status.DRAINING
        assert not server.is_ready
        assert not draining.done()
        released.set()
        await draining
        assert [reply.data for reply in peer.replies] == [b'"released"']


async def test_drain_begins_nothing_anew(
    server: Server, listener: FakeListener
) -> None:
    """A wire that ends while draining is not consumed again."""
    async with running(server):
        await server.drain()
        listener.intake.closed.set_result(None)
        await server.ended()
    assert listener.entered == 1


async def test_ready_is_not_reported_while_draining(
    server: Server, listener: FakeListener
) -> None:
    """What the wire reports while draining makes it ready no more."""
    async with running(server):
        await server.drain()
        listener.intake.changed(Status.UNBLOCKED)
        assert not server.is_ready


async def test_stop_cancels(listener: FakeListener, released: asyncio.Event) -> None:
    """Stopping gives back what is in flight, and what still comes, unanswered."""
    server = server_of(listener, hold)
    async with running(server):
        peer = Peer(server)
        delivery = peer.send("hold")
        await until(lambda: heard)
        await server.stop()
        late = peer.send("hold")
    assert [(each.outcome, each.reason) for each in (delivery, late)] == [
        ("retry", GIVEN_BACK)
    ] * 2
    assert peer.replies == []
    assert not server.in_flight


# --- to whom ----------------------------------------------------------------------


async def test_request(server: Server) -> None:
    """A request goes to its handler and is answered."""
    async with running(server):
        peer = Peer(server)
        delivery = peer.send("double", b"2")
        await until(lambda: delivery.outcome)
    assert [(r.id, r.data, r.last) for r in peer.replies] == [("id", b"4", True)]
    assert delivery.outcome == "ack"


async def test_event(server: Server) -> None:
    """An event goes to its handler, and nothing is answered."""
    async with running(server):
        peer = Peer(server)
        delivery = peer.send("single", b"7", UNSET)
        await until(lambda: delivery.outcome)
    assert (heard, peer.replies) == ([7], [])


async def test_event_with_several_handlers(server: Server) -> None:
    """All handlers of an event get it."""
    async with running(server):
        delivery = Peer(server).send("noted", b"7", UNSET)
        await until(lambda: delivery.outcome)
    assert sorted(heard) == [("first", 7), ("second", 7)]
    assert delivery.outcome == "ack"


async def test_handlers_of_an_event_run_in_parallel(listener: FakeListener) -> None:
    """Two handlers of one event can meet."""
    meeting = asyncio.Barrier(2)

    @event_pattern("met")
    async def one(data: Any) -> None:
        await meeting.wait()

    @event_pattern("met")
    async def other(data: Any) -> None:
        await meeting.wait()

    server = server_of(listener, one, other)
    async with running(server):
        delivery = Peer(server).send("met", b"1", UNSET)
        await until(lambda: delivery.outcome)
    assert delivery.outcome == "ack"


async def test_failing_handler_of_several(listener: FakeListener) -> None:
    """One that fails leaves the others be, and the delivery is to be retried."""
    server = server_of(listener, first, failing)
    async with running(server):
        delivery = Peer(server).send("noted", b"7", UNSET)
        await until(lambda: delivery.outcome)
    assert heard == [("first", 7)]
    assert delivery.outcome == "retry"


async def test_request_to_an_events_pattern(server: Server) -> None:
    """As with Nest, a request to an event's pattern runs all, and is answered."""
    async with running(server):
        peer = Peer(server)
        several = peer.send("noted", b"7", "several")
        alone = peer.send("single", b"7", "alone")
        await until(lambda: several.outcome and alone.outcome)
    assert sorted(reply.id for reply in peer.replies) == ["alone", "several"]
    assert len(heard) == 3


async def test_event_to_a_requests_pattern(server: Server) -> None:
    """As with Nest, an event to a request's pattern runs its handler, unanswered."""
    async with running(server):
        peer = Peer(server)
        delivery = peer.send("double", b"2", UNSET)
        await until(lambda: delivery.outcome)
    assert (heard, peer.replies) == ([2], [])


async def test_unknown_request(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that nobody handles is answered so, and is never acknowledged."""
    async with running(server):
        peer = Peer(server)
        delivery = peer.send({"cmd": "wrong"})
    assert [reply.missing for reply in peer.replies] == [True]
    assert delivery.outcome == "dead"
    assert server.unhandled == 1
    assert "has no handler for request" in caplog.text


async def test_unknown_event(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An event that nobody handles is counted and logged."""
    async with running(server):
        peer = Peer(server)
        delivery = peer.send("wrong", b"1", UNSET)
    assert (peer.replies, delivery.outcome) == ([], "dead")
    assert "has no handler for event wrong" in caplog.text


async def test_unknown_patterns_are_not_remembered(server: Server) -> None:
    """However many patterns a peer makes up, nothing grows."""
    async with running(server):
        for number in range(50):
            Peer(server).send(f"wrong {number}")
        routes = server._routes
        assert (routes._requests, routes._events) == ({}, {})


async def test_most_remembered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are found, so many are remembered; the others are looked up."""
    monkeypatch.setattr(routing, "_MOST_REMEMBERED", 0)
    async with running(server):
        delivery = Peer(server).send("double", b"2")
        await until(lambda: delivery.outcome)
        assert server._routes._requests == {}


# --- over a real wire -------------------------------------------------------------


async def test_port_taken(free_port: Callable[[], int]) -> None:
    """A server whose port is taken refuses to start."""
    port = free_port()
    async with serving(port, double):
        with pytest.raises(
            TransportRefused, match=f"Cannot listen on 127.0.0.1:{port}"
        ):
            async with serving(port, double):
                pass


async def test_address(free_port: Callable[[], int]) -> None:
    """The address is for people; the driver is what is beneath."""
    port = free_port()
    async with serving(port, double) as server:
        assert server.address == f"tcp://127.0.0.1:{port}"
        assert server.unwrap().sockets[0].getsockname() == ("127.0.0.1", port)


async def test_concurrency(
    free_port: Callable[[], int], released: asyncio.Event
) -> None:
    """At most ``concurrency`` messages are in flight; the others wait their turn."""
    port = free_port()
    async with (
        serving(port, hold, concurrency=3) as server,
        calling(port) as client,
    ):
        calls = [asyncio.ensure_future(client.asend("hold")) for _ in range(10)]
        await until(lambda: len(server.in_flight) == 3)
        await asyncio.sleep(0.02)
        assert len(server.in_flight) == 3
        released.set()
        assert await asyncio.gather(*calls) == ["released"] * 10
