"""What the TCP wire reads of one peer: sizes, and parts of frames."""

import asyncio
import json
import logging

import pytest

from django_microservices.exceptions import (
    MessageTooLarge,
)
from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp import line
from django_microservices.transports.tcp.protocol import frame
from django_microservices.wire.messages import Reply

from .packets import (
    answer,
    connections,
    hold,
)
from .peers import Serve, Service, eventually


async def test_frame_over_the_limit(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A larger frame ends the connection, with one line that says why."""
    async with serve(max_frame_size=100) as server:
        peer = await server.peer()
        peer.request("x" * 100)
        assert await peer.ended() == b""
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"Closed the connection with {peer.address}: a frame of "
    )


async def test_max_buffer_size(serve: Serve) -> None:
    """Nest's name sets what may be received, more or less than is sent."""
    async with serve(max_frame_size=100, max_buffer_size=1000) as server:
        peer = await server.peer()
        peer.request("x" * 500)
        (delivery,) = await server.service.came(1)
        assert delivery.data == "x" * 500
    assert TCPTransport(max_buffer_size=10).new_socket().max_frame_size == 10


async def test_answer_over_the_limit(serve: Serve) -> None:
    """An answer that the peer would refuse is an error on this side."""
    async with serve(Service(hold), max_frame_size=200) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        with pytest.raises(
            MessageTooLarge, match=r"over max_frame_size \(200\): raise"
        ):
            delivery.respond(Reply("7", b'"' + b"x" * 200 + b'"'))
        delivery.answer()
        assert await peer.read() == answer()


async def test_request_over_the_limit(serve: Serve) -> None:
    """A request that the server would refuse is never sent."""
    async with serve() as server, server.link(max_frame_size=200) as calls:
        with pytest.raises(MessageTooLarge, match="max_frame_size"):
            calls.send("a", b'"' + b"x" * 200 + b'"')
        calls.send("a")
        await calls.came(1)


async def test_limit_counts_units(serve: Serve) -> None:
    """Both ways count as the wire does, not in bytes."""
    text = json.dumps("€" * 900, ensure_ascii=False).encode()
    async with (
        serve(max_frame_size=1000) as server,
        server.link(max_frame_size=1000) as calls,
    ):
        calls.send("a", text)
        assert bytes((await calls.came(1))[0].data or b"") == text


async def test_partial_frame(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A frame that is not finished in time ends the connection."""
    async with serve(incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        peer.writer.write(b"100#{")
        assert await peer.ended() == b""
    assert "a frame took more than 0.05 s" in caplog.text


async def test_partial_frame_in_drops(serve: Serve) -> None:
    """The time is that of the whole frame: a byte does not begin it anew."""
    async with serve(incomplete_message_timeout=0.1) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        peer.writer.write(b"10000#")
        (theirs,) = await connections(server)
        while not theirs.lost:
            size = len(theirs.socket._buffer or b"")
            peer.writer.write(b"x")
            await eventually(
                lambda: theirs.lost or len(theirs.socket._buffer or b"") > size  # noqa: B023
            )
        assert loop.time() - begun < 10


async def test_next_frame_has_its_own_time(serve: Serve) -> None:
    """A peer that is always within a frame, but finishes each, is not cut."""
    async with serve(incomplete_message_timeout=0.2) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        until = loop.time() + 0.6
        peer.writer.write(text[:5])
        while loop.time() < until:
            peer.writer.write(text[5:] + text[:5])
            assert await peer.read() == answer()
        (theirs,) = server.intake.connections
        assert theirs.socket.partial


async def test_timer_forgets_a_finished_frame(serve: Serve) -> None:
    """A frame that was finished costs nothing when its time is over."""
    async with serve(incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        peer.writer.write(text[:5])
        (theirs,) = await connections(server)
        await eventually(lambda: theirs._frame_timer is not None)
        peer.writer.write(text[5:])
        assert await peer.read() == answer()
        await eventually(lambda: theirs._frame_timer is None)
        assert not theirs.lost


async def test_no_limit_for_a_frame(serve: Serve) -> None:
    """0 turns the limit off."""
    async with serve(incomplete_message_timeout=0) as server:
        peer = await server.peer()
        peer.writer.write(b"100#{")
        (theirs,) = await connections(server)
        await eventually(lambda: theirs.socket.partial)
        assert theirs._frame_timer is None


async def test_waiting_server_is_not_the_peers_fault(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server does not read, a frame's time does not pass."""
    monkeypatch.setattr(line, "MOST", 0)
    async with serve(Service(hold), limit=1, incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        peer.writer.write(text + text + text[:5])
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        timer = theirs._frame_timer
        await eventually(lambda: theirs._frame_timer is not timer)
        assert not theirs.lost
        first.answer()
        (_, second) = await server.service.came(2)
        second.answer()
        peer.writer.write(text[5:])
        await server.service.came(3)


async def test_log_line_is_one_line(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer sent cannot begin a line of its own in the log."""
    caplog.set_level(logging.WARNING)
    async with serve() as server:
        peer = await server.peer()
        peer.writer.write(b"\r\n\x1b[31m#")
        await peer.ended()
    (record,) = caplog.records
    assert record.getMessage().isprintable()
