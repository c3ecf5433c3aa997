"""How much a TCP server takes at once, and who waits."""

import asyncio
import itertools
from typing import Any

import pytest

from django_microservices.transports.tcp import (
    connection,
    line,
)
from django_microservices.transports.tcp.protocol import frame

from .packets import (
    answer,
    connections,
    hold,
    kept,
)
from .peers import Delivery, Serve, Service, eventually


@pytest.mark.parametrize("option", ["max_connections", "max_connections_per_address"])
async def test_too_many_connections(
    serve: Serve, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    """Who comes when it is full is refused; the others are served; room returns."""
    async with serve(**{option: 2}) as server:
        first, second = await server.peer(), await server.peer()
        await eventually(lambda: len(server.intake.connections) == 2)
        third = await server.peer()
        third.request()
        assert await third.ended() == b""
        assert f"more than {option}=2" in caplog.text
        second.request()
        assert await second.read() == answer()
        first.close()
        await eventually(lambda: len(server.intake.connections) == 1)
        fourth = await server.peer()
        fourth.request()
        assert await fourth.read() == answer()
    assert not server.intake.per_address


async def test_at_most_so_many_at_once(serve: Serve) -> None:
    """Over the limit messages wait in order."""
    async with serve(Service(hold), limit=3) as server:
        peer = await server.peer()
        for number in range(10):
            peer.request(number, str(number))
        deliveries = await server.service.came(3)
        (theirs,) = await connections(server)
        assert (len(deliveries), theirs.line.backlog.count) == (3, 7)
        for number in range(10):
            (await server.service.came(number + 1))[number].answer()
            assert await peer.read() == answer(number, str(number))
        assert (theirs.deaf, theirs.line) == (False, None)


async def test_little_is_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer is read on while little of it waits, and again when little is left."""
    monkeypatch.setattr(line, "MOST", 16 * 1024)
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        for number in range(3):
            peer.request(number)
            (theirs,) = await connections(server)
            await eventually(lambda: server.service.deliveries)
        assert not theirs.deaf
        peer.request("x" * 32 * 1024)
        peer.request("last")
        await eventually(lambda: theirs.deaf)
        for number in range(4):
            (await server.service.came(number + 1))[number].answer()
        await eventually(lambda: not theirs.deaf)
        assert (await server.service.came(5))[4].data == "last"


async def test_room_is_shared(serve: Serve) -> None:
    """Who waits is served in turn, and a peer that leaves waits no more."""
    async with serve(Service(hold), limit=1) as server:
        peers = [await server.peer() for _ in range(3)]
        for number, one in enumerate(peers):
            one.request(number)
            await eventually(lambda: server.intake.outstanding or server.intake.waiting)
        await eventually(lambda: len(server.intake.waiting) == 2)
        (first,) = server.service.deliveries
        peers[1].close()
        await eventually(lambda: len(server.intake.connections) == 2 or True)
        first.answer()
        assert await peers[0].read() == answer(0)
        deliveries = await server.service.came(2)
        if deliveries[1].data == 1:  # it was delivered before the end was seen
            deliveries[1].end()
            deliveries = await server.service.came(3)
        deliveries[-1].answer()
        assert await peers[2].read() == answer(2)


async def test_lost_while_waiting(serve: Serve) -> None:
    """What a lost peer had waiting is dropped."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        peer.request(1)
        peer.request(2)
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        await eventually(lambda: server.intake.waiting)
        theirs.abort("test")
        await asyncio.wait_for(first.cancelled.wait(), 10)
        assert not server.intake.waiting
        assert (server.intake.outstanding, len(server.service.deliveries)) == (0, 1)


async def test_lost_in_its_turn(serve: Serve) -> None:
    """A peer that is cut while its messages are worked off is left alone."""
    service = Service(hold)
    async with serve(service, limit=1) as server:
        peer = await server.peer()
        for number in range(3):
            peer.request(number)
        (first,) = await service.came(1)
        (theirs,) = await connections(server)
        await eventually(lambda: kept(server) == 2)
        waits = theirs.line
        service.answer, service.at_once = lambda _: theirs.abort("test"), True
        first.answer()
        assert len(service.deliveries) == 2
        await peer.ended()
        await eventually(lambda: not server.intake.connections)
        assert (server.intake.outstanding, len(server.intake.waiting)) == (0, 0)
        waits.leave()
        assert theirs.line is None


async def test_very_many_tiny_frames(serve: Serve) -> None:
    """100,000 requests at once are all answered, in order and in small parts."""
    service = Service(at_once=True)
    async with serve(service, max_send_buffer_size=0) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","id":1}')
        reading = asyncio.ensure_future(
            peer.reader.readexactly(100_000 * len(b'25#{"isDisposed":true,"id":1}'))
        )
        peer.writer.write(text * 100_000)
        async with asyncio.timeout(60):
            data = await reading
        assert data.count(b'"id":1}') == 100_000


async def test_parts_are_small(serve: Serve) -> None:
    """However much one read brought, a tick delivers a bounded part of it."""
    service = Service(at_once=True)
    ticks: list[int] = []
    async with serve(service) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        before = 0

        def tick() -> None:
            nonlocal before
            ticks.append(len(service.deliveries) - before)
            before += ticks[-1]
            if before < 8000:
                loop.call_soon(tick)

        tick()
        peer.writer.write(frame(b'{"pattern":"a"}') * 8000)
        await service.came(8000)
        await eventually(lambda: before == 8000)
    assert max(ticks) <= 2 * connection.AT_ONCE


async def test_large_messages_count_for_many(serve: Serve) -> None:
    """What waits is worked off in parts that are small in bytes as well."""
    begun: list[int] = []
    service = Service(lambda delivery: begun.append(len(delivery.message.data)))
    service.at_once = True
    async with serve(service, limit=1) as server:
        holder = await server.peer()
        holder.request()
        (first,) = await service.came(1)
        peers = [await server.peer() for _ in range(4)]
        for one in peers:
            one.request("x" * 600_000)
        await eventually(lambda: kept(server) == 4)
        server.intake.limit = 100
        ticks = []

        def count() -> None:
            ticks.append(len(begun))
            if len(begun) < 5:
                asyncio.get_running_loop().call_soon(count)

        first.answer()
        count()
        await eventually(lambda: len(begun) == 5)
        # 1 MB is what a tick handles: two of them.
        steps = [later - one for one, later in itertools.pairwise(ticks)]
        assert max(steps) <= 2


async def test_no_recursion(serve: Serve) -> None:
    """Many peers that wait for room, each done at once, are no deeper than one."""
    first_come = True

    def answer_at_once(delivery: Delivery) -> None:
        nonlocal first_come
        if first_come:
            first_come = False
        else:
            delivery.answer()

    service = Service(answer_at_once, at_once=True)
    async with serve(service, limit=1, max_connections_per_address=1000) as server:
        holder = await server.peer()
        holder.request()
        await service.came(1)
        peers = [await server.peer() for _ in range(300)]
        for one in peers:
            one.request()
        await eventually(lambda: len(server.intake.waiting) == 300)
        service.deliveries[0].answer()
        for one in peers:
            assert await one.read() == answer()
        assert server.intake.outstanding == 0


async def test_failing_service_stops_nobody(serve: Serve) -> None:
    """A bug behind the transport costs its connection, and no room."""

    def fail(delivery: Delivery) -> None:
        if delivery.data == "fail":
            raise ZeroDivisionError
        delivery.answer()

    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    service = Service(fail, at_once=True)
    async with serve(service, limit=1) as server:
        for _ in range(3):
            peer = await server.peer()
            peer.request("fail")
            assert await peer.ended() == b""
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        assert server.intake.outstanding == 0
    assert len(errors) == 3
