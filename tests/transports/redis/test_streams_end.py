"""The server's half of Redis' streams when it stops, or loses its connection."""

import asyncio
from typing import Any

import pytest

from django_microservices.exceptions import ConnectionLost, TransportRefused
from tests.transports.peers import Service, eventually

from .ends import (
    Streams,
    emit,
    has_pending,
    hold,
    linked,
    nothing_pending,
    refreshed,
    serving,
    until,
)


async def test_stopped_server_gives_back(streams: Streams, name: str, spy: Any) -> None:
    """What it did not finish is with the next one at once, and does not count."""
    service, next_one = Service(hold), Service()
    names = (f"{name}.a", f"{name}.b")
    transport = streams(max_deliveries=1)
    async with linked(streams()) as calls:
        for each in names:
            await emit(calls, each, b"1")
            await emit(calls, each, b"2")
    async with serving(transport, service, *names, limit=2) as intake:
        await service.came(2)
        await eventually(lambda: intake.room.waiting)
        for delivery in service.deliveries:
            delivery.end("retry", "cancelled")
        assert len(service.deliveries) == 2  # nothing else has begun
    async with serving(transport, next_one, *names):
        deliveries = await next_one.came(4)
    assert {d.message.wire.deliveries for d in deliveries} == {1}


@pytest.mark.parametrize("outcome", ["dead", "ack"])
async def test_reason_that_reads_like_a_stop(
    streams: Streams, name: str, outcome: str
) -> None:
    """A refusal in these words, or a caller who left, is no server that stops."""
    service, names = Service(hold), (f"{name}.a", f"{name}.b")
    async with linked(streams()) as calls:
        for each in names:
            await emit(calls, each)
    async with serving(streams(), service, *names, limit=1) as intake:
        (delivery,) = await service.came(1)
        await eventually(lambda: intake.room.waiting)
        delivery.end(outcome, "cancelled")
        assert len(service.deliveries) == 2  # the next one has begun


async def test_pause(streams: Streams, name: str, spy: Any) -> None:
    """A draining server finishes what it began, and gives the rest back."""
    service, other = Service(hold), Service()
    names = (f"{name}.a", f"{name}.b")
    async with linked(streams()) as calls:
        for each in names:
            await emit(calls, each, b"1")
            await emit(calls, each, b"2")
        async with serving(streams(), service, *names, limit=1) as one:
            (delivery,) = await service.came(1)
            await eventually(lambda: one.room.waiting)
            pausing = asyncio.create_task(one.pause())
            await eventually(lambda: not one.room.waiting)
            await emit(calls, name, b"3")
            delivery.answer()
            await pausing
            assert len(service.deliveries) == 1
            async with serving(streams(), other, *names):
                await other.came(3)


async def test_pause_gives_back_what_rests(
    streams: Streams, name: str, spy: Any
) -> None:
    """What waits for another try is tried by somebody else, and that counts."""
    service, other = Service(lambda d: d.end("retry", delay=0.1)), Service()
    transport = streams(claim_after=0.2)
    async with linked(streams()) as calls, serving(transport, service, name) as intake:
        await emit(calls, name)
        await eventually(lambda: _rests(intake))
        await intake.pause()
        async with serving(transport, other, name):
            (delivery,) = await other.came(1)
            assert delivery.message.wire.deliveries == 2
            # What a last read brings is given back as well.
            id_ = await spy.xadd(name, {"data": "2"})
            await spy.xreadgroup("orders", intake.groups.consumer, {name: ">"})
            (stream,) = intake.groups.streams.values()
            intake.take(stream, id_, [b"data", b"2"], 1)
            await other.came(2)
        assert other.deliveries[1].message.wire.deliveries == 1


def _rests(intake: Any) -> bool:
    """Whether something waits for another try."""
    return any(stream.resting for stream in intake.groups.streams.values())


@pytest.mark.parametrize(
    ("when", "delay"),
    [("before", 400.0), ("before", 5000.0), ("after", 0.0), ("after", 400.0)],
)
async def test_stop_keeps_a_rest(
    streams: Streams, name: str, spy: Any, when: str, delay: float
) -> None:
    """Others claim it when its rest is over, or after ``claim_after`` at most."""
    service = Service(hold)
    transport = streams(claim_after=1000.0)
    async with linked(streams()) as calls, serving(transport, service, name) as intake:
        await emit(calls, name)
        (delivery,) = await service.came(1)
        if when == "before":
            delivery.end("retry", delay=delay)
        pausing = asyncio.create_task(intake.pause())
        await eventually(lambda: intake.holdings.is_ending)
        delivery.end("retry", delay=delay)
        await pausing
    (left,) = await spy.xpending_range(name, "orders", "-", "+", 10)
    assert left["times_delivered"] == 1
    idle = max(0, 1000 - delay) * 1000
    assert idle - 1000 < left["time_since_delivered"] < idle + 100_000


async def test_lost_connection(streams: Streams, name: str, spy: Any) -> None:
    """The reason is said; what was in flight is Redis' again, and claimed."""
    service, other = Service(hold), Service()
    transport = streams(claim_after=0.3)
    async with serving(transport, service, name) as intake, linked(streams()) as calls:
        await emit(calls, name, b"1")
        await emit(calls, name, b"2")
        await service.came(2)
        service.deliveries[1].end("retry", delay=60.0)
        await spy.client_kill_filter(_type="normal", skipme=True)
        async with asyncio.timeout(10):
            for closed in (intake.closed, calls.link.closed):
                assert "Redis closed the connection" in str(await closed)
        service.deliveries[0].end("retry")
        with pytest.raises(ConnectionLost):
            calls.send(name)
    async with serving(transport, other, name):
        await other.came(2)


async def test_what_runs_outlives_the_connection(
    streams: Streams, name: str, spy: Any
) -> None:
    """The same server goes on with it, so that it does not run beside itself."""
    service, transport = Service(hold), streams(claim_after=0.2)
    async with linked(streams()) as calls:
        async with serving(transport, service, name) as intake:
            for _ in range(3):
                await emit(calls, name)
            delivery, done, refused = await service.came(3)
            intake.hands.abort("cut")
            await intake.closed
        with pytest.raises(TransportRefused):  # what could not begin loses nothing
            async with serving(transport, service, "a.*"):
                pass
        done.answer()
        refused.end("dead", "no such order")
        async with serving(transport, service, name):
            again = (await service.came(4))[3]
            assert again.message.wire.entry_id == refused.message.wire.entry_id
            again.answer()
            await until(lambda: has_pending(spy, name, "orders", 1))
            await refreshed(spy, name)
            assert len(service.deliveries) == 4
            delivery.end("retry", delay=0.01)
            again = (await service.came(5))[4]
            assert again.message.wire.deliveries == 2
            again.answer()
            await until(lambda: nothing_pending(spy, name))
    assert not transport._left
