"""A peer that does not read what was written to it."""

import asyncio
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
)
from django_microservices.transports.tcp import (
    connection,
    output,
)
from django_microservices.wire.messages import UNSET, Reply

from .packets import (
    LARGE,
    connections,
    fill,
    hold,
)
from .peers import Serve, Service, eventually

CAP = 1024 * 1024


async def test_unread_output_pauses_reading(serve: Serve) -> None:
    """Of a peer that leaves half the cap unread nothing more is read or begun."""
    service = Service(lambda delivery: delivery.answer(LARGE))
    async with serve(service, limit=10, max_send_buffer_size=4 * CAP) as server:
        peer = await server.peer(receive=4096, limit=1024)
        for _ in range(200):
            peer.request()
        (theirs,) = await connections(server)
        await eventually(
            lambda: theirs.output.clogged and not server.intake.outstanding
        )
        assert theirs.deaf
        assert theirs.output.unread < 3 * CAP
        count = len(service.deliveries)
        assert count < 200
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(service.deliveries) == count
        for _ in range(200):
            await peer.read()
        assert len(service.deliveries) == 200


async def test_unread_output_is_capped(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What one peer leaves unread stays under twice the cap, and it is cut."""
    service = Service(hold)
    async with serve(service, limit=1000, max_send_buffer_size=CAP) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await service.came(1)
        (theirs,) = server.intake.connections
        most = 0
        while not theirs.lost:
            delivery.say(LARGE, last=False)
            theirs.output.flush()
            most = max(most, theirs.output.unread)
        assert most < 2 * CAP
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        for _ in range(20):
            delivery.say(LARGE, last=False)
    assert "the peer left more than 1048576 bytes unread" in caplog.text
    assert "socket.send() raised" not in caplog.text


async def test_burst_of_large_answers(serve: Serve) -> None:
    """All that may be in flight, each as large as may be, is no reason to cut."""
    data = b'"%b"' % (b"x" * (1024 * 1024 - 100))
    service = Service(lambda delivery: delivery.answer(data))
    async with serve(service, limit=100) as server, server.link() as calls:
        for number in range(100):
            calls.send("a", b"1", str(number))
        await calls.came(100)
    assert {bytes(reply.data or b"") for reply in calls} == {data}


async def test_sender_waits_for_the_reader(serve: Serve) -> None:
    """A stream is held back until its peer reads on."""
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = None
        count = 0
        while waiting is None:
            waiting = delivery.respond(Reply("7", LARGE, last=False))
            count += 1
        held = asyncio.ensure_future(waiting)
        also = asyncio.ensure_future(delivery.respond(Reply("7", LARGE, last=False)))
        await asyncio.sleep(0)
        assert not held.done()
        for _ in range(count + 1):
            await peer.read()
        await asyncio.wait_for(asyncio.gather(held, also), 10)
        delivery.answer()


async def test_sender_of_a_lost_reader(serve: Serve) -> None:
    """Who waits for a peer that is lost gets an error."""
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = fill(delivery)
        peer.close()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, 10)


async def test_sender_of_a_vanished_host(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a host that acknowledges nothing is not kept for ever."""
    monkeypatch.setattr(output, "CHECK", 0.01)
    gone = iter((False, True))
    monkeypatch.setattr(output, "has_vanished", lambda _: next(gone))
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = fill(delivery)
        with pytest.raises(ConnectionLost, match="host has vanished"):
            await asyncio.wait_for(waiting, 10)


async def test_refused_peer_does_not_linger(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that is refused and reads nothing is gone after a moment."""
    monkeypatch.setattr(connection, "LINGER", 0.05)
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        while not theirs.output.paused:
            delivery.say(LARGE, last=False)
        theirs.refuse("test")
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_client_is_held_back(serve: Serve) -> None:
    """A client whose server does not read waits, and then goes on."""
    async with serve(Service(hold), limit=1) as server, server.link() as calls:
        waiting = None
        while waiting is None:
            waiting = calls.send("a", LARGE, UNSET)
        await server.service.came(1)
        server.limit = server.intake.limit = 10**6
        server.service.deliveries[0].end()
        await asyncio.wait_for(waiting, 10)


async def test_burst_of_a_client(serve: Serve) -> None:
    """What is over the cap may be our own doing: a server that reads is not left."""
    async with serve() as server, server.link(max_send_buffer_size=CAP) as calls:
        for number in range(100):
            calls.send("a", LARGE, str(number))
        assert calls.link.output.unread > CAP
        await calls.came(100)


async def test_burst_that_is_never_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that reads nothing at all of it is left."""
    monkeypatch.setattr(output, "CHECK", 0.01)
    options: Any = {"max_send_buffer_size": CAP, "unread_timeout": 0.05}
    async with serve(Service(hold), limit=1) as server, server.link(**options) as calls:
        for number in range(200):
            calls.send("a", LARGE, str(number))
        lost = await asyncio.wait_for(asyncio.shield(calls.link.closed), 10)
    assert "the peer read nothing for 0.05 s" in str(lost)
