"""Our own extension of Nest's wire, at the server."""

import asyncio

import pytest

from django_microservices.transports.tcp import extension, line, peer
from django_microservices.wire.messages import Reply

from .packets import (
    ALIVE,
    HELLO,
    PEER,
    answer,
    connections,
    hold,
    kept,
)
from .peers import Serve, Service, eventually


async def test_hello(serve: Serve) -> None:
    """A peer that says that it is ours is greeted once."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(**PEER)
        peer.request(**PEER)
        assert [await peer.read() for _ in range(3)] == [HELLO, answer(), answer()]


async def test_no_hello_for_strangers(serve: Serve) -> None:
    """Nest sees nothing of it."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(metadata={"other": "1"})
        peer.request()
        await server.intake.pause()
        assert [await peer.read() for _ in range(2)] == [answer(), answer()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1500", 1.5),
        ("0", 0.0),
        ("٣", 0.003),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("9" * 10, None),
    ],
)
async def test_timeout(serve: Serve, text: str, seconds: float | None) -> None:
    """The caller's patience arrives, and only where it is a number."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(metadata={"dm-timeout": text})
        (delivery,) = await server.service.came(1)
        assert delivery.message.timeout == seconds


@pytest.mark.parametrize("pattern", ["dm-ping", "dm-cancel", "dm-other"])
async def test_reserved_patterns(serve: Serve, pattern: str) -> None:
    """To a stranger our own patterns are unknown, and they reach no handler."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": pattern, "data": "7"})
        peer.send({"pattern": pattern, "data": "7", "id": "1"})
        packet = await peer.read()
        assert (packet["id"], packet["status"]) == ("1", "error")
        assert not server.service.deliveries


async def test_ping(serve: Serve) -> None:
    """A peer of ours may ask whether the server lives."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(**PEER)
        peer.send({"pattern": "dm-ping", "data": 0, "id": "dm-ping-1"})
        packets = [await peer.read() for _ in range(3)]
        assert sorted(packet["id"] for packet in packets) == [
            "7",
            "dm-hello",
            "dm-ping-1",
        ]


async def test_alive(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a server does not read, it tells peers of ours that it lives."""
    monkeypatch.setattr(extension, "STILL_ALIVE", 0.05)
    monkeypatch.setattr(line, "MOST", 0)
    async with serve(Service(hold), limit=1) as server:
        ours, strange = await server.peer(), await server.peer()
        ours.request(1, "1", **PEER)
        assert await ours.read() == HELLO
        (first,) = await server.service.came(1)
        for one in (ours, strange):
            one.request(2, "2")
        assert [await ours.read() for _ in range(2)] == [ALIVE, ALIVE]
        first.answer()
        assert await ours.read() == answer(1, "1")
        for number in (2, 3):
            (await server.service.came(number))[-1].answer()
        assert (await strange.read())["id"] == "2"


async def test_alive_is_told_at_a_steady_pace(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often reading stops, one timer counts; who does not read is not told."""
    monkeypatch.setattr(extension, "STILL_ALIVE", 0.05)
    async with serve(Service(hold)) as server:
        ours = await server.peer()
        ours.request(**PEER)
        await server.service.came(1)
        (theirs,) = await connections(server)
        told: list[Reply] = []
        monkeypatch.setattr(
            peer.ServerConnection, "answer", lambda _, reply: told.append(reply)
        )
        for _ in range(100):
            theirs.clog()
            theirs.resume_writing()
        theirs.pause_reading()
        await eventually(lambda: told)
        assert told == [extension.ALIVE]
        theirs.clog()
        theirs.extension._prove_life()
        theirs.resume_writing()
        theirs.extension._prove_life()
        assert told == [extension.ALIVE]


async def test_cancel(serve: Serve) -> None:
    """A peer of ours may cancel a request; what it does not know is no matter."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "a", **PEER)
        peer.request(1, "b", **PEER)
        first, second = await server.service.came(2)
        peer.send({"pattern": "dm-cancel", "data": "x"})
        peer.send({"pattern": "dm-cancel"})
        peer.send({"pattern": "dm-cancel", "data": "b"})
        await asyncio.wait_for(second.cancelled.wait(), 10)
        assert first.outcome is None
        first.answer()
        assert [await peer.read() for _ in range(2)] == [HELLO, answer(1, "a")]


# --- on a server that is full ---


async def test_cancel_frees_a_place(serve: Serve) -> None:
    """A cancel is not kept waiting: it ends what runs, and the next one begins."""
    async with serve(Service(hold), limit=1) as server:
        ours = await server.peer()
        ours.request(1, "a", **PEER)
        (first,) = await server.service.came(1)
        ours.request(2, "b")
        ours.send({"pattern": "dm-cancel", "data": "a"})
        await asyncio.wait_for(first.cancelled.wait(), 10)
        _, second = await server.service.came(2)
        assert second.message.id == "b"


async def test_cancel_of_what_waits(serve: Serve) -> None:
    """A request that is cancelled while it waits is never begun."""
    async with serve(Service(hold), limit=1) as server:
        ours = await server.peer()
        ours.request(1, "a", **PEER)
        (first,) = await server.service.came(1)
        ours.send(
            *({"pattern": "echo", "data": 1, "id": id_} for id_ in "bcd"),
            {"pattern": "dm-cancel", "data": "b"},
            {"pattern": "dm-cancel", "data": "d"},
            {"pattern": "dm-cancel", "data": ["c"]},
        )
        ours.request(1, "e")
        await eventually(lambda: kept(server) == 4)
        first.answer()
        (await server.service.came(2))[1].answer()
        (await server.service.came(3))[2].answer()
        assert [d.message.id for d in server.service.deliveries] == ["a", "c", "e"]


async def test_ping_of_a_full_server(serve: Serve) -> None:
    """A server without room still says that it lives."""
    async with serve(Service(hold), limit=1) as server:
        ours = await server.peer()
        ours.request(1, "a", **PEER)
        await server.service.came(1)
        ours.request(2, "b")
        ours.send({"pattern": "dm-ping", "data": 0, "id": "dm-ping-1"})
        assert await ours.read() == HELLO
        assert await ours.read() == answer(0, "dm-ping-1")


async def test_greeted_by_a_full_server(serve: Serve) -> None:
    """A peer of ours whose first request must wait may cancel it all the same."""
    async with serve(Service(hold), limit=1) as server:
        other, ours = await server.peer(), await server.peer()
        other.request(1, "other")
        (first,) = await server.service.came(1)
        ours.request(1, "a", **PEER)
        assert await ours.read() == HELLO
        ours.send({"pattern": "dm-cancel", "data": "a"})
        ours.request(1, "b", **PEER)
        await eventually(lambda: kept(server) == 2)
        first.answer()
        assert (await server.service.came(2))[1].message.id == "b"


@pytest.mark.parametrize(
    "text",
    [
        b'{"pattern":"dm-other","data":1,"id":"b"}',
        b'{"pattern":"echo","data":"dm-peer","id":"b"}',
        b'{"pattern":"echo","data":{"dm-peer":"1"},"id":"b"}',
    ],
)
async def test_others_wait_for_room(serve: Serve, text: bytes) -> None:
    """What only looks like a packet of ours waits like any other."""
    async with serve(Service(hold), limit=1) as server:
        strange, ours = await server.peer(), await server.peer()
        ours.request(1, "a", **PEER)
        (first,) = await server.service.came(1)
        assert await ours.read() == HELLO
        for one in (strange, ours):
            one.send(text)
        await eventually(lambda: kept(server) == 2)
        first.answer()
        assert await ours.read() == answer(1, "a")


@pytest.mark.parametrize("text", [b'{"pattern":"dm-ping",', b'"dm-peer" NaN'])
async def test_nonsense_that_waits(serve: Serve, text: bytes) -> None:
    """What cannot be read ends its connection when its turn comes, not before."""
    async with serve(Service(hold), limit=1) as server:
        ours, other = await server.peer(), await server.peer()
        ours.request(1, "a", **PEER)
        (first,) = await server.service.came(1)
        for one in (ours, other):
            one.send(text)
        await eventually(lambda: len(server.intake.waiting) == 2)
        first.answer()
        for one in (ours, other):
            await one.ended()


@pytest.mark.parametrize("id_", ["dm-hello", "dm-", "dm-ping-1"])
async def test_reserved_ids(
    serve: Serve, caplog: pytest.LogCaptureFixture, id_: str
) -> None:
    """An id of ours is refused from callers: its answer would be taken for ours."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(1, id_)
        peer.request(1, "dm")
        assert await peer.read() == answer(1, "dm")
        assert server.intake.dropped == 1
    assert "Dropped a request whose id is reserved" in caplog.text


async def test_patience_runs_while_a_request_waits(serve: Serve) -> None:
    """A caller's time is what is left of it when there is room."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        peer.request(1, "a")
        (first,) = await server.service.came(1)
        peer.request(1, "b", metadata={"dm-timeout": "60000"})
        peer.request(1, "c", metadata={"dm-timeout": "1"})
        await eventually(lambda: kept(server) == 2)
        await asyncio.sleep(0.01)
        first.answer()
        (await server.service.came(2))[1].answer()
        timeouts = [d.message.timeout for d in await server.service.came(3)]
        assert timeouts[0] is None
        assert 0 < (timeouts[1] or 0) < 60
        assert timeouts[2] == 0
