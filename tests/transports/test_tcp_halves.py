"""Connections of which one side has ended."""

import asyncio
import socket

import pytest

from django_microservices.exceptions import (
    NotConnected,
)
from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp import (
    connection,
    peer,
)

from .packets import (
    LARGE,
    answer,
    hold,
)
from .peers import RESET, Serve, Service, eventually


async def test_half_closed_peer_is_answered(serve: Serve) -> None:
    """A stranger that ended its side gets every answer, and then our end."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        peer.request(2, "2")
        peer.writer.write_eof()
        first, second = await server.service.came(2)
        (theirs,) = server.intake.connections
        await eventually(lambda: theirs.peer_ended)
        first.answer()
        assert await peer.read() == answer(1, "1")
        second.answer()
        assert await peer.read() == answer(2, "2")
        assert await peer.ended() == b""


async def test_half_closed_peer_gets_no_stream(serve: Serve) -> None:
    """Its streams end at once: nobody may be there any more, and they need not end."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        peer.request(2, "2")
        stream, unary = await server.service.came(2)
        stream.is_stream = True
        peer.writer.write_eof()
        await asyncio.wait_for(stream.cancelled.wait(), 10)
        unary.answer()
        assert await peer.read() == answer(2, "2")
        assert await peer.ended() == b""


async def test_half_closed_peer_that_waits(serve: Serve) -> None:
    """What waited for room is answered as well."""
    async with serve(limit=1) as server:
        peer = await server.peer()
        for number in range(600):
            peer.request(number, str(number))
        peer.writer.write_eof()
        for number in range(600):
            assert await peer.read() == answer(number, str(number))
        assert await peer.ended() == b""


async def test_half_closed_peer_with_nothing_asked(serve: Serve) -> None:
    """A peer that awaits nothing is closed at once."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "event"})
        peer.writer.write_eof()
        assert await peer.ended() == b""
        await server.service.came(1)


async def test_half_closed_peer_is_not_kept_for_ever(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has ended its side cannot hold a stream open without end."""
    monkeypatch.setattr(peer, "HALF_OPEN", 0.05)
    async with serve(Service(hold)) as server:
        raw = await server.peer()
        raw.request()
        raw.writer.write_eof()
        (delivery,) = await server.service.came(1)
        assert await raw.ended() == b""
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_half_closed_peer_that_reads_slowly(serve: Serve) -> None:
    """The end is seen once, also where reading was paused and goes on."""
    async with serve(Service(hold)) as server:
        raw = await server.peer(receive=4096, limit=1024)
        raw.request()
        (delivery,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        raw.writer.write_eof()
        await eventually(lambda: theirs.peer_ended)
        count = 0
        while not theirs.output.paused:
            delivery.say(LARGE, last=False)
            count += 1
        for _ in range(count):
            await raw.read()
        delivery.answer()
        assert await raw.read() == answer()
        assert await raw.ended() == b""


async def test_end_of_our_own_peer_cancels(serve: Serve) -> None:
    """A client of ours that ends is gone: its end cancels a stream at once."""
    async with serve(Service(hold)) as server, server.link() as calls:
        calls.send("stream")
        (delivery,) = await server.service.came(1)
        await calls.link.close()
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_server_that_ends(serve: Serve) -> None:
    """A client whose server ends is told so, and can send no more."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        theirs.transport.write_eof()
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason) == "the server closed the connection"
        with pytest.raises(NotConnected, match="ended"):
            calls.send("a")
        calls.link.output.write(b"{}")


async def test_end_that_nobody_awaits(serve: Serve) -> None:
    """Who gave up waiting for the end does not disturb it."""
    async with serve() as server, server.link() as calls:
        calls.link.closed.cancel()
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        theirs.transport.abort()
        await eventually(lambda: calls.link.lost)


async def test_reset(serve: Serve) -> None:
    """A reset is told with the system's reason."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        sock = theirs.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        theirs.transport.abort()
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert "reset" in str(reason)


async def test_a_connection_is_one_of_two() -> None:
    """What is read is for the server's or the client's half to handle."""
    half = connection.Connection(TCPTransport(), asyncio.get_running_loop())
    with pytest.raises(NotImplementedError):
        half.texts_received([])
