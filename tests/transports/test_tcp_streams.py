"""Streams whose readers do not read: what they hold of a TCP server, and how long."""

import asyncio
import contextlib
from typing import Any

import pytest
import trustme

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports.tcp import output
from django_microservices.transports.tls import client_context

from .packets import answer, connections, fill, hold
from .peers import Delivery, Serve, Service, eventually

HOST = "127.0.0.1"


def stream(delivery: Delivery) -> None:
    """Be an async stream, and answer nothing."""
    delivery.is_stream = True


def threaded(delivery: Delivery) -> None:
    """Be a stream on a thread, and answer nothing."""
    delivery.is_stream, delivery.takes_place = True, False


async def wait_for_reader(server: Any, number: int = 0) -> Any:
    """Have a stream's peer fall behind; return what waits for it to read."""
    delivery = (await server.service.came(number + 1))[number]
    waiting = asyncio.ensure_future(fill(delivery))
    await asyncio.sleep(0)
    return waiting


# --- how long ---


async def test_peer_that_reads_nothing_is_cut(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that reads nothing for so long is cut, and its stream cancelled."""
    async with serve(Service(hold), unread_timeout=0.1) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        waiting = await wait_for_reader(server)
        (delivery,) = server.service.deliveries
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        with pytest.raises(ConnectionLost, match=r"read nothing for 0\.1 s"):
            await waiting
    assert "the peer read nothing for 0.1 s" in caplog.text


@pytest.mark.parametrize("is_secure", [False, True])
async def test_peer_that_reads_slowly_is_left_alone(
    serve: Serve,
    is_secure: bool,  # noqa: FBT001
) -> None:
    """A peer that reads a little now and then keeps its stream, also under TLS."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    own: Any = {
        "cert": leaf.cert_chain_pems[0].bytes().decode(),
        "key": leaf.private_key_pem.bytes().decode(),
    }
    context = client_context({"ca": authority.cert_pem.bytes().decode()})
    ours: Any = {"tls_options": own} if is_secure else {}
    theirs: Any = {"ssl": context, "server_hostname": HOST} if is_secure else {}
    async with serve(Service(hold), unread_timeout=0.5, **ours) as server:
        peer = await server.peer(receive=64 * 1024, limit=1024, **theirs)
        peer.request()
        (delivery,) = await server.service.came(1)
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.5
        waiting: Any = None
        while loop.time() < until:
            if waiting is None or waiting.done():
                waiting = asyncio.ensure_future(fill(delivery))
            await peer.reader.read(64 * 1024)
            await asyncio.sleep(0.01)
        assert delivery.outcome is None
        waiting.cancel()


async def test_peer_may_read_when_it_likes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 waits for ever."""
    monkeypatch.setattr(output, "CHECK", 0.01)
    async with serve(Service(hold), unread_timeout=0) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        waiting = await wait_for_reader(server)
        (theirs,) = server.intake.connections
        for _ in range(10):
            timer = theirs.output._timer
            await eventually(lambda: theirs.output._timer is not timer)  # noqa: B023
        assert not waiting.done()
        waiting.cancel()


async def test_timer_ends_with_the_reason_for_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks at a peer that has caught up."""
    monkeypatch.setattr(output, "CHECK", 0.01)
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        waiting = await wait_for_reader(server)
        (theirs,) = server.intake.connections
        assert theirs.output._timer is not None
        while not waiting.done():
            await peer.reader.read(64 * 1024)
        await eventually(lambda: theirs.output._timer is None)


# --- how many places ---


@pytest.mark.parametrize("kind", [stream, threaded])
async def test_waiting_streams_take_no_place(serve: Serve, kind: Any) -> None:
    """Streams that wait for their reader, or for a thread, keep nobody out."""
    async with serve(Service(kind, at_once=True), limit=1) as server:
        behind = await server.peer(receive=4096, limit=1024)
        behind.request()
        (first,) = await server.service.came(1)
        other = await server.peer()
        other.request()
        if first.takes_place:
            await eventually(lambda: server.intake.waiting)
        waiting = await wait_for_reader(server)
        _, second = await server.service.came(2)
        second.answer()
        assert await other.read() == answer()
        while not waiting.done():
            await behind.reader.read(64 * 1024)
        await waiting
        assert server.intake.outstanding == first.takes_place
        first.answer()
        assert server.intake.outstanding == 0


@pytest.mark.parametrize("kind", [stream, threaded])
async def test_one_peers_share(serve: Serve, kind: Any) -> None:
    """Of one peer no more streams wait than there are places; then its turn comes."""
    async with serve(Service(kind, at_once=True), limit=2) as server:
        peer = await server.peer(receive=4096, limit=1024)
        waiting = []
        for number in range(2):
            peer.request(number, str(number))
            waiting.append(await wait_for_reader(server, number))
        (theirs,) = await connections(server)
        await eventually(lambda: theirs.pending.is_full)
        assert server.intake.outstanding == 0
        peer.request(2, "2")
        await eventually(lambda: theirs.line.backlog.count)
        assert len(server.service.deliveries) == 2
        server.service.deliveries[0].cancel()
        waiting[0].cancel()  # as the delivery does in earnest
        await server.service.came(3)
        for one in waiting:
            one.cancel()


async def test_cancelled_while_it_waits(serve: Serve) -> None:
    """A stream that is cancelled while it waits gives its place back once."""
    async with serve(Service(stream, at_once=True), limit=1) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        waiting = await wait_for_reader(server)
        await eventually(lambda: server.intake.outstanding == 0)
        server.service.deliveries[0].cancel()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert server.intake.outstanding == 0


async def test_streams_that_cannot_be_told_apart(serve: Serve) -> None:
    """Of two requests with one id the second keeps its place while it waits."""
    async with serve(Service(stream, at_once=True), limit=3) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        peer.request(1, [1])
        waiting = await wait_for_reader(server, 1)
        await asyncio.sleep(0)
        assert server.intake.outstanding == 2
        waiting.cancel()
