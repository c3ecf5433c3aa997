"""What others left is claimed, and what is done is removed."""

import asyncio
from typing import Any

import pytest

from django_microservices.exceptions import (
    TransportRefused,
)
from django_microservices.transports.redis import (
    groups,
    upkeep,
)
from tests.transports.peers import Delivery, Service, eventually

from .ends import (
    Streams,
    dead,
    emit,
    fail,
    has_pending,
    hold,
    idle_for,
    linked,
    nothing_pending,
    refreshed,
    serving,
    until,
)

# --- claims ---


async def test_what_a_dead_consumer_had_is_claimed(
    streams: Streams, name: str, spy: Any
) -> None:
    """After ``claim_after`` another one has it, and Redis counts the delivery."""
    await spy.xgroup_create(name, "orders", "0", mkstream=True)
    for number in range(3):
        await spy.xadd(name, {"data": str(number)})
    await spy.xreadgroup("orders", "dead", {name: ">"}, count=3)
    service = Service()
    async with serving(streams(claim_after=0.3), service, name):
        deliveries = await service.came(3)
        await until(lambda: nothing_pending(spy, name))
    assert [d.data for d in deliveries] == [0, 1, 2]
    assert {d.message.wire.deliveries for d in deliveries} == {2}


async def test_nothing_is_claimed_that_somebody_works_on(
    streams: Streams, name: str, spy: Any
) -> None:
    """However long a handler runs, or an entry rests, it stays with its consumer."""
    busy, idle = Service(hold), Service()
    transport = streams(claim_after=0.2)
    async with serving(transport, busy, name), linked(streams()) as calls:
        await emit(calls, name, b"1")
        await emit(calls, name, b"2")
        await busy.came(2)
        busy.deliveries[0].end("retry", delay=1.0)
        async with serving(transport, idle, name):
            await until(lambda: idle_for(spy, name, 0))
            await refreshed(spy, name)
            assert not idle.deliveries
            busy.deliveries[1].answer()
            await busy.came(3)
            busy.deliveries[2].answer()
            await until(lambda: nothing_pending(spy, name))


async def test_entry_that_kills_its_consumers(
    streams: Streams, name: str, spy: Any
) -> None:
    """One that was delivered too often and never settled is a dead letter."""
    await spy.xgroup_create(name, "orders", "0", mkstream=True)
    id_ = await spy.xadd(name, {"data": "1"})
    await spy.xreadgroup("orders", "dead", {name: ">"})
    await spy.xclaim(name, "orders", "dead", 0, [id_], retrycount=2)
    service = Service()
    async with serving(streams(claim_after=0.1, max_deliveries=2), service, name):
        (letter,) = await until(lambda: dead(spy, name))
    assert letter[b"dm-reason"] == b"delivered 2 times, never settled"
    assert not service.deliveries


async def test_entry_that_was_removed(streams: Streams, name: str, spy: Any) -> None:
    """What is pending and not in the stream any more is let go."""
    service = Service(fail)
    transport = streams(claim_after=0.1)
    async with serving(transport, service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        await service.came(1)
        await spy.xtrim(name, maxlen=0, approximate=False)
        await until(lambda: nothing_pending(spy, name))
        await eventually(lambda: not intake.holdings.held)
        stream = next(iter(intake.groups.streams.values()))
        intake.take(stream, b"1-1", None, 1)
        assert not intake.holdings.held


async def test_full_server_claims_a_little(
    streams: Streams, name: str, spy: Any
) -> None:
    """A backlog leaves never room: what others left comes before the rest of it."""
    await spy.xgroup_create(name, "orders", "0", mkstream=True)
    service = Service(hold)
    transport = streams(claim_after=0.1)
    async with serving(transport, service, name, limit=1) as intake:
        async with linked(streams()) as calls:
            await emit(calls, name, b"1")
            await service.came(1)
            for data in (b"2", b"3", b"4"):
                await emit(calls, name, data)
        await spy.xreadgroup("orders", "dead", {name: ">"}, count=2)
        await until(lambda: _pending_of(spy, name, b"dead", 1))
        await eventually(lambda: intake.upkeep._claimed)
        await intake.upkeep._look()
        assert await _pending_of(spy, name, b"dead", 1)  # no second one beside it
        assert (len(service.deliveries), len(intake.room.waiting)) == (1, 1)
        service.deliveries[0].answer()
        assert (await service.came(2))[1].data == 2
        service.deliveries[1].answer()
        await service.came(3)
        await until(lambda: _pending_of(spy, name, b"dead", 0))
        service.answer = Delivery.answer
        service.deliveries[2].answer()
        assert {d.data for d in await service.came(4)} == {1, 2, 3, 4}
        await until(lambda: nothing_pending(spy, name))


async def _pending_of(spy: Any, name: str, consumer: bytes, count: int) -> bool:
    """Whether a consumer has so many entries."""
    found = await spy.xpending_range(name, "orders", "-", "+", 10)
    return [one["consumer"] for one in found].count(consumer) == count


async def test_draining_server_keeps_what_it_works_on(
    streams: Streams, name: str, spy: Any
) -> None:
    """It claims no more, and nobody claims what still runs."""
    busy, idle = Service(hold), Service()
    transport = streams(claim_after=0.2)
    async with serving(transport, busy, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        (delivery,) = await busy.came(1)
        pausing = asyncio.create_task(intake.pause())
        async with serving(transport, idle, name):
            await refreshed(spy, name)
            assert not idle.deliveries
            delivery.answer()
            await pausing
            await until(lambda: nothing_pending(spy, name))
    assert not idle.deliveries


async def test_claim_that_comes_at_the_end(
    streams: Streams, name: str, spy: Any
) -> None:
    """What a server claimed and cannot begin any more is given back, uncounted."""
    await spy.xgroup_create(name, "orders", "0", mkstream=True)
    await spy.xadd(name, {"data": "1"})
    await spy.xreadgroup("orders", "dead", {name: ">"})
    await until(lambda: idle_for(spy, name, 100))
    service = Service()
    async with serving(streams(claim_after=0.1), service, name) as intake:
        intake.hands.pause_reading()
        await until(lambda: _pending_of(spy, name, b"dead", 0))
        closing = asyncio.create_task(intake.close())
        await eventually(intake.upkeep._is_over.is_set)
        intake.hands.resume_reading()
        await closing
    assert await idle_for(spy, name, 10**6, 10**15)
    (left,) = await spy.xpending_range(name, "orders", "-", "+", 10)
    assert left["times_delivered"] == 1
    assert not service.deliveries


async def test_server_that_may_not_tidy(limited_streams: Any, name: str) -> None:
    """What it may not do any more ends a server for good."""
    transport = limited_streams("+@all", "~*", "&*", "-xautoclaim")
    async with serving(transport, Service(), name) as intake:
        async with asyncio.timeout(10):
            assert isinstance(await intake.closed, TransportRefused)


# --- what nobody needs any more ---


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidy up at every look."""
    monkeypatch.setattr(upkeep, "SWEEP", 0.02)
    monkeypatch.setattr(upkeep, "TIDY", 0.0)
    monkeypatch.setattr(groups, "GONE", 0.5)


async def _length(spy: Any, name: str, most: int) -> bool:
    return int(await spy.xlen(name)) <= most


@pytest.mark.usefixtures("tidy")
async def test_acknowledged_entries_are_removed(
    streams: Streams, name: str, spy: Any
) -> None:
    """They go once every group has acknowledged them: Redis cuts whole blocks."""
    await spy.config_set("stream-node-max-entries", 10)
    slow = Service(hold)
    async with (
        serving(streams(), Service(), name),
        serving(streams(group="mail"), slow, name),
        linked(streams()) as calls,
    ):
        for _ in range(100):
            await emit(calls, name)
        await slow.came(100)
        await until(lambda: has_pending(spy, name, "orders", 0))
        assert await spy.xlen(name) == 100
        for delivery in slow.deliveries:
            delivery.answer()
        await until(lambda: _length(spy, name, 10))


@pytest.mark.usefixtures("tidy")
async def test_acknowledged_entries_are_kept(
    streams: Streams, name: str, spy: Any
) -> None:
    """With ``keep_acknowledged`` the history stays."""
    await spy.config_set("stream-node-max-entries", 10)
    service = Service()
    transport = streams(keep_acknowledged=True)
    async with serving(transport, service, name), linked(streams()) as calls:
        for _ in range(50):
            await emit(calls, name)
        await service.came(50)
        await spy.xgroup_createconsumer(name, "orders", "gone")
        await until(lambda: _is_forgotten(spy, name, b"gone"))
        assert await spy.xlen(name) == 50


@pytest.mark.usefixtures("tidy")
async def test_consumers_that_died_are_forgotten(
    streams: Streams, name: str, spy: Any
) -> None:
    """Not before what they had was claimed."""
    await spy.xgroup_create(name, "orders", "0", mkstream=True)
    await spy.xadd(name, {"data": "1"})
    await spy.xreadgroup("orders", "dead", {name: ">"})
    service = Service()
    async with serving(streams(claim_after=1.0), service, name):
        await until(lambda: _is_forgotten(spy, name, b"dead"))
        assert len(service.deliveries) == 1


async def _is_forgotten(spy: Any, name: str, consumer: bytes) -> bool:
    found = await spy.xinfo_consumers(name, "orders")
    return consumer not in [one["name"] for one in found]
