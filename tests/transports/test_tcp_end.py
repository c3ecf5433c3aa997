"""How a TCP server drains and ends, and how a client leaves."""

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.transports.tcp import link
from django_microservices.transports.tcp.backlog import MOST
from django_microservices.transports.tcp.protocol import frame
from django_microservices.wire.messages import UNSET
from django_microservices.wire.status import Status

from .packets import (
    BYE,
    HELLO,
    LARGE,
    PEER,
    answer,
    connections,
    hold,
)
from .peers import Delivery, Peer, Serve, Service, eventually, linked


async def test_drain_without_peers(serve: Serve) -> None:
    """Nobody is there, so nothing is waited for."""
    async with serve() as server:
        await asyncio.wait_for(server.intake.pause(), 10)
        assert server.intake.address == "closed"


async def test_drain_says_goodbye(serve: Serve) -> None:
    """Peers of ours are told, strangers see nothing, and who stays quiet ends it."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        await asyncio.wait_for(server.intake.pause(), 10)
        await eventually(lambda: calls.statuses)
        assert calls.statuses == [Status.DRAINING]
    assert await peer.ended() == b""


async def test_drain_ends_with_the_last_peer(serve: Serve) -> None:
    """When every peer has gone, waiting is over."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.pausing)
        peer.close()
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        await asyncio.wait_for(draining, 10)


async def test_drain_waits_for_what_is_in_flight(serve: Serve) -> None:
    """What was accepted is answered, however long it takes, and what still comes."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1", **PEER)
        (first,) = await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.address == "closed")
        with pytest.raises(ConnectionError):
            await Peer.connect(server.port)
        peer.request(2, "2")
        _, second = await server.service.came(2)
        await asyncio.wait((draining,), timeout=0.1)
        assert not draining.done()
        first.answer()
        second.answer()
        packets = [await peer.read() for _ in range(4)]
        assert packets == [HELLO, BYE, answer(1, "1"), answer(2, "2")]
        await asyncio.wait_for(draining, 10)


async def test_drain_waits_for_streams(serve: Serve) -> None:
    """So it does for streams, which may take no place."""

    def thread(delivery: Delivery) -> None:
        delivery.is_stream, delivery.takes_place = True, False

    async with serve(Service(thread, at_once=True)) as server:
        peer = await server.peer()
        peer.request()
        (stream,) = await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await asyncio.wait((draining,), timeout=0.2)
        assert not draining.done()
        stream.answer()
        await asyncio.wait_for(draining, 10)


async def test_drain_greets_and_says_goodbye(serve: Serve) -> None:
    """A peer of ours that speaks up only now is told at once."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.pausing)
        peer.request(2, "2", **PEER)
        assert [await peer.read() for _ in range(2)] == [HELLO, BYE]
        for delivery in await server.service.came(2):
            delivery.answer()
        await asyncio.wait_for(draining, 10)


async def test_drain_waits_for_a_frame_on_its_way(serve: Serve) -> None:
    """A frame whose bytes still come is waited for."""
    async with serve() as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        (theirs,) = await connections(server)
        draining = asyncio.ensure_future(server.intake.pause())
        for size, byte in enumerate(text[:-1], 1):
            peer.writer.write(bytes([byte]))
            await eventually(lambda: len(theirs.socket._buffer or b"") == size)  # noqa: B023
        peer.writer.write(text[-1:])
        assert await peer.read() == answer()
        await asyncio.wait_for(draining, 10)


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server take what still comes for a moment only."""
    monkeypatch.setattr("django_microservices.transports.tcp.intake.LAST_WORDS", 0.05)


@pytest.mark.usefixtures("few_words")
async def test_drain_with_a_stranger_that_goes_on(serve: Serve) -> None:
    """Who is never quiet is left in the end; what was taken of it is answered."""
    async with serve() as server:
        peer, asked = await server.peer(), itertools.count()

        async def go_on() -> None:
            for number in asked:
                peer.request(number, str(number))
                assert await peer.read() == answer(number, str(number))

        talking = asyncio.ensure_future(go_on())
        await server.service.came(10)
        await asyncio.wait_for(server.intake.pause(), 10)
        with pytest.raises(asyncio.IncompleteReadError):
            await talking
        assert len(server.service.deliveries) == next(asked) - 1


@pytest.mark.usefixtures("few_words")
async def test_drain_of_a_peer_that_was_held_back(serve: Serve) -> None:
    """What we let wait in its socket is taken, however long that takes."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        count = 3 * MOST // 1000
        peer.send(*[{"pattern": "a", "data": "x" * 1000}] * count)
        (theirs,) = await connections(server)
        await eventually(lambda: theirs.deaf)
        await server.peer()
        await eventually(lambda: len(server.intake.connections) == 2)
        (another,) = server.intake.connections - {theirs}
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: another.finishing)  # it may say nothing any more
        assert not theirs.finishing
        for number in range(count):
            (await server.service.came(number + 1))[number].answer()
        await asyncio.wait_for(draining, 10)
    assert len(server.service.deliveries) == count


@pytest.mark.parametrize("known", [{}, PEER], ids=["stranger", "ours"])
async def test_events_of_a_peer_that_is_gone(
    serve: Serve, known: dict[str, Any]
) -> None:
    """They are handled, and a drain waits for them; its requests are not begun."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        peer.request(1, "1", **known)
        peer.send(*[{"pattern": "a", "data": n} for n in (2, 3)])
        peer.request(4, "4")
        peer.send({"pattern": "a", "data": 5})
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        await eventually(lambda: theirs.line and theirs.line.backlog.count == 4)
        peer.close()
        await eventually(lambda: not server.intake.connections)
        assert server.intake.admitted == 1
        draining = asyncio.ensure_future(server.intake.pause())
        assert first.cancelled.is_set()
        for count in (2, 3, 4):
            (await server.service.came(count))[-1].answer()
        await asyncio.wait_for(draining, 10)
        assert server.intake.admitted == 0
    assert [one.data for one in server.service.deliveries] == [1, 2, 3, 5]


async def test_events_that_nobody_will_handle(serve: Serve) -> None:
    """A server that ends leaves no events of peers that are gone to its loop."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        peer.send(*[{"pattern": "a", "data": n} for n in (1, 2)])
        (first,) = await server.service.came(1)
        peer.close()
        await eventually(lambda: not server.intake.connections)
    first.answer()
    await asyncio.sleep(0)
    assert server.service.deliveries == [first]


@pytest.mark.usefixtures("few_words")
async def test_what_comes_too_late(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not taken any more is counted, and told of."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: theirs.finishing)
        peer.send({"pattern": "a"}, {"pattern": "a"})
        await eventually(lambda: server.intake.dropped == 2)
        first.answer()
        await asyncio.wait_for(draining, 10)
    assert "Dropped what came while the server ends" in caplog.text


@pytest.mark.usefixtures("few_words")
async def test_last_words(serve: Serve) -> None:
    """In the end nothing new is taken; who awaits an answer still gets it."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: theirs.finishing)
        heard = theirs.heard
        peer.request(2, "2")
        await eventually(lambda: theirs.heard > heard)
        assert not draining.done()
        first.answer()
        assert await peer.read() == answer(1, "1")
        assert await peer.ended() == b""
        await asyncio.wait_for(draining, 10)
        assert server.service.deliveries == [first]


@pytest.mark.usefixtures("few_words")
async def test_last_words_of_ours(serve: Serve) -> None:
    """A peer of ours is told to the end that we live, and may cancel."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1", **PEER)
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: theirs.finishing)
        peer.request(2, "2")
        peer.send({"pattern": "dm-ping", "data": 0, "id": "dm-ping-1"})
        assert [await peer.read() for _ in range(3)] == [
            HELLO,
            BYE,
            answer(0, "dm-ping-1"),
        ]
        peer.send({"pattern": "dm-cancel", "data": "1"})
        await asyncio.wait_for(first.cancelled.wait(), 10)
        assert await peer.ended() == b""
        await asyncio.wait_for(draining, 10)
        assert server.service.deliveries == [first]


async def test_half_closed_connection_is_forgotten(serve: Serve) -> None:
    """Nothing waits any more for a peer that had ended its own side, and is gone."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        peer.writer.write_eof()
        await eventually(lambda: theirs.peer_ended)
        timer = theirs._half_open
        assert timer is not None
        delivery.answer()
        assert await peer.read() == answer()
        assert await peer.ended() == b""
        await eventually(timer.cancelled)


async def test_answers_survive_the_end(serve: Serve) -> None:
    """Input that nobody reads any more does not destroy answers already written."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        delivery.answer()
        ending = asyncio.ensure_future(server.intake.close())
        await eventually(lambda: next(iter(server.intake.connections)).lost)
        peer.request(2, "2")
        assert await peer.read() == answer()
        assert await peer.ended() == b""
        peer.request(3, "3")
        peer.close()
        await asyncio.wait_for(ending, 10)
        assert len(server.service.deliveries) == 1


async def test_answer_after_the_end(serve: Serve) -> None:
    """An answer that comes too late goes nowhere, and is no error."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        server.intake.connections.copy().pop().end_writing()
        delivery.answer()
        assert await peer.ended() == b""
        peer.close()


async def test_peer_that_stays(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not go after our end is cut after a moment."""
    monkeypatch.setattr("django_microservices.transports.tcp.intake.LINGER", 0.05)
    async with serve(limit=1) as server:
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        await asyncio.wait_for(server.intake.close(), 10)
        assert not server.intake.connections
        assert await peer.ended() == b""


async def test_end_with_a_backlog(serve: Serve) -> None:
    """What was kept is dropped at the end, and what is half closed just closes."""
    async with serve(Service(hold), limit=2) as server:
        waiting, half = await server.peer(), await server.peer()
        half.request()
        half.writer.write_eof()
        await server.service.came(1)
        for _ in range(5):
            waiting.request()
        await server.service.came(2)
        await eventually(lambda: server.intake.waiting)
        await eventually(lambda: any(c.peer_ended for c in server.intake.connections))
        ending = asyncio.ensure_future(server.intake.close())
        assert await waiting.ended() == b""
        assert await half.ended() == b""
        waiting.close()
        await asyncio.wait_for(ending, 10)
        assert len(server.service.deliveries) == 2


async def test_end_twice(serve: Serve) -> None:
    """Closing again, and what is closing already, does no harm."""
    async with serve() as server:
        peer = await server.peer()
        peer.request()
        await peer.read()
        (theirs,) = server.intake.connections
        theirs.refuse("test")
        theirs.refuse("again")
        theirs.abort("again")
        assert theirs.reason == "test"
        await asyncio.wait_for(server.intake.close(), 10)
        await asyncio.wait_for(server.intake.close(), 10)


async def test_client_leaves(serve: Serve) -> None:
    """Leaving the block sends what was published, closes, and waits for that."""
    async with serve() as server:
        async with server.link() as calls:
            calls.send("a", id_=UNSET)
        assert calls.link.closed.done()
        assert calls.link.driver.is_closing()
        await server.service.came(1)


async def test_client_leaves_a_server_that_does_not_read(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be sent in a moment is given up."""
    monkeypatch.setattr(link, "LINGER", 0.05)
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with linked(silent.getsockname()[1]) as calls:
            while calls.send("a", LARGE, UNSET) is None:
                pass
        assert calls.link.closed.done()


async def test_client_that_is_cancelled(serve: Serve) -> None:
    """Cancelling leaves the block in good order."""
    async with serve() as server:

        async def stay() -> None:
            async with server.link():
                await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(stay())
        await eventually(lambda: server.intake.connections)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not server.intake.connections)


async def test_drain_waits_for_a_slow_reader(serve: Serve) -> None:
    """Answers that a peer is still reading are waited for; who stopped is not."""
    async with serve(Service(hold)) as server:
        slow, stuck = [await server.peer(limit=1024) for _ in range(2)]
        for number, one in enumerate((slow, stuck)):
            one.request(number)
        count = 220
        for delivery in await server.service.came(2):
            for _ in range(count):
                delivery.say(LARGE, last=False)
            delivery.answer()
        draining = asyncio.ensure_future(server.intake.pause())
        for _ in range(count):
            await slow.read()
        assert not draining.done()
        assert await slow.read() == answer(0)
        await asyncio.wait_for(draining, 10)
        assert any(theirs.output.paused for theirs in server.intake.connections)
        for theirs in server.intake.connections:
            theirs.transport.abort()
