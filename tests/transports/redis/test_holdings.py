"""What becomes of an entry: acknowledged, tried again, a dead letter."""

import asyncio
from typing import Any

import pytest

from django_microservices.transports.redis import (
    RedisStreamsTransport,
    groups,
    holdings,
)
from tests.brokers.redis import Redis
from tests.transports.peers import Delivery, Service, eventually

from .ends import (
    Streams,
    dead,
    emit,
    fail,
    hold,
    linked,
    nothing_pending,
    pending,
    serving,
    settle,
    until,
)


async def test_retried_with_a_rest(streams: Streams, name: str, spy: Any) -> None:
    """What failed is delivered again, and Redis counts; the handler may say when."""
    loop, times = asyncio.get_running_loop(), []

    def answer(delivery: Delivery) -> None:
        times.append(loop.time())
        last = len(times) == 3
        delivery.end("ack" if last else "retry", delay=None if last else 0.1)

    service = Service(answer)
    async with serving(streams(), service, name), linked(streams()) as calls:
        await emit(calls, name, b'{"a":1}')
        deliveries = await service.came(3)
        await until(lambda: nothing_pending(spy, name))
    assert [d.message.wire.deliveries for d in deliveries] == [1, 2, 3]
    assert [d.data for d in deliveries] == [{"a": 1}] * 3
    assert times[2] - times[0] >= 0.199


async def test_retried_after_somebody_else_settled_it(
    streams: Streams, name: str, spy: Any
) -> None:
    """What is settled when it is due again is not delivered again."""
    service = Service(lambda delivery: delivery.end("retry", delay=0.2))
    async with serving(streams(), service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        await service.came(1)
        ((id_, _),) = await spy.xrange(name)
        await spy.xack(name, "orders", id_)
        await eventually(lambda: not intake.holdings.held)
    assert len(service.deliveries) == 1


async def test_very_many_rest(
    streams: Streams,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where very many rest before another try, no more are read of their stream."""
    monkeypatch.setattr(groups, "MOST_RESTING", 2)
    service = Service(lambda delivery: delivery.end("retry", delay=60.0))
    block = serving(streams(), service, name, f"{name}.b", limit=1)
    async with block as intake, linked(streams()) as calls:
        for _ in range(4):
            await emit(calls, name)
        stream = intake.groups.streams[name.encode()]
        await eventually(lambda: not stream.is_read)
        service.answer = Delivery.answer
        intake.reader.want()
        await intake.upkeep._look()
        for _ in range(4):
            await emit(calls, f"{name}.b")
        await eventually(lambda: _count(service, f"{name}.b") == 4)
        resting = tuple(stream.resting)
        assert _count(service, name) == len(resting)
        for held in resting:  # it is due
            held.timer.cancel()
            intake.holdings._due(held)
        await eventually(lambda: _count(service, name) == 4 + len(resting))
    assert caplog.text.count(f"entries of {name} rest before another try") == 1


def _count(service: Service, name: str) -> int:
    """Count the deliveries of a pattern."""
    return [each.message.pattern.route for each in service.deliveries].count(name)


async def test_cut_while_it_rested(
    streams: Streams, name: str, spy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What failed and was removed before it was tried again is reported."""
    service = Service(lambda delivery: delivery.end("retry", delay=60.0))
    async with serving(streams(), service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        (stream,) = intake.groups.streams.values()
        await eventually(lambda: stream.resting)
        await spy.xtrim(name, maxlen=0, approximate=False)
        (held,) = stream.resting
        held.timer.cancel()
        intake.holdings._due(held)
        await eventually(lambda: not intake.holdings.held)
    assert f"of {name}, which had failed, is gone" in caplog.text


async def test_entry_that_we_hold_already(streams: Streams, name: str) -> None:
    """What comes to us once more while it is handled is let go."""
    service = Service(hold)
    async with serving(streams(), service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        await service.came(1)
        (held,) = intake.holdings.held.values()
        intake.take(held.stream, held.id, held.fields, 2)
        assert len(service.deliveries) == 1


async def test_due_while_the_group_is_gone(
    streams: Streams, name: str, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due when there is no group waits until there is one again."""
    monkeypatch.setattr(holdings, "LATER", 0.05)
    service = Service(lambda delivery: delivery.end("retry", delay=0.2))
    async with serving(streams(), service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        await service.came(1)
        service.answer = Delivery.answer
        intake._mending = asyncio.get_running_loop().create_future()
        await spy.xgroup_destroy(name, "orders")
        (held,) = intake.holdings.held.values()
        first = held.timer
        await eventually(lambda: held.timer not in (first, None))
        await intake._mend()
        await service.came(2)
        await until(lambda: nothing_pending(spy, name))


# --- dead letters ---


async def test_dead_letter(streams: Streams, name: str, spy: Any) -> None:
    """After too many deliveries it is kept with the reason and all that it was."""
    service = Service(fail)
    transport = streams(max_deliveries=2)
    async with serving(transport, service, name), linked(streams()) as calls:
        await emit(calls, name, b'{"a":1}', headers={"x": "y"})
        (letter,) = await until(lambda: dead(spy, name))
        assert not await pending(spy, name)
        ((id_, _),) = await spy.xrange(name)
    assert letter == {
        b"data": b'{"a":1}',
        b"headers": b'{"x":"y"}',
        b"dm-reason": b"it failed",
        b"dm-group": b"orders",
        b"dm-id": id_,
        b"dm-deliveries": b"2",
    }
    assert len(service.deliveries) == 2


async def test_rejected(streams: Streams, name: str, spy: Any) -> None:
    """What a handler refuses is a dead letter at once; the first verdict counts."""

    def answer(delivery: Delivery) -> None:
        settle(delivery, "dead", "no such order")
        delivery.end("ack")

    service = Service(answer)
    async with serving(streams(), service, name), linked(streams()) as calls:
        await emit(calls, name)
        (letter,) = await until(lambda: dead(spy, name))
    assert (letter[b"dm-reason"], letter[b"dm-deliveries"]) == (b"no such order", b"1")


async def test_buried_by_two(streams: Streams, name: str, spy: Any) -> None:
    """An entry that somebody else has settled does not become a dead letter."""
    service = Service(hold)
    async with serving(streams(), service, name) as intake, linked(streams()) as calls:
        await emit(calls, name)
        (delivery,) = await service.came(1)
        ((id_, _),) = await spy.xrange(name)
        await spy.xack(name, "orders", id_)
        settle(delivery, "dead", "too late")
        await intake.hands.ask("PING")
        assert not await dead(spy, name)


async def test_refused_dead_letter(
    private_redis: Redis, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter that Redis has no room for is written later."""
    monkeypatch.setattr(holdings, "LATER", 0.05)
    transport = RedisStreamsTransport(url=private_redis.url, group="orders")
    service = Service(hold)
    async with serving(transport, service, name), linked(transport) as calls:
        await emit(calls, name)
        (delivery,) = await service.came(1)
        private_redis.execute("CONFIG", "SET", "maxmemory", "1")
        delivery.end("dead", "no such order")
        await until(lambda: asyncio.to_thread(_refusals, private_redis))
        private_redis.execute("CONFIG", "SET", "maxmemory", "0")
        dead = f"{name}.dead"
        await until(lambda: asyncio.to_thread(private_redis.execute, "XLEN", dead))


async def test_too_many_fields(streams: Streams, name: str, spy: Any) -> None:
    """An entry that no script can copy is a dead letter without its fields."""
    fields = {f"f{number}": "v" for number in range(5000)}
    async with serving(streams(), Service(), name) as intake:
        id_ = await spy.xadd(name, {**fields, "headers": "[]"})
        (letter,) = await until(lambda: dead(spy, name))
        await eventually(lambda: not intake.holdings.held)
    assert letter == {
        b"dm-stream": name.encode(),
        b"dm-reason": b"The headers are no object.",
        b"dm-group": b"orders",
        b"dm-id": id_,
        b"dm-deliveries": b"1",
    }


async def test_letters_that_cannot_be_written(
    streams: Streams, name: str, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried ever more rarely, no more is read than rests, and then all is."""
    monkeypatch.setattr(groups, "MOST_RESTING", 2)
    monkeypatch.setattr(holdings, "LATER", 0.01)
    monkeypatch.setattr(holdings, "MOST_LATER", 0.04)
    service = Service(lambda delivery: delivery.end("dead", "no such order"))
    transport = streams(claim_after=0.3)
    await spy.set(f"{name}.dead", "no stream")
    async with serving(transport, service, name, limit=1) as intake:
        async with linked(streams()) as calls:
            for _ in range(4):
                await emit(calls, name)
        (stream,) = intake.groups.streams.values()
        await eventually(lambda: len(stream.resting) == 2)
        first, _ = intake.holdings.held.values()
        await eventually(lambda: first.rest == 0.04)
        assert (stream.is_read, len(service.deliveries)) == (False, 2)
        await spy.delete(f"{name}.dead")
        await service.came(4)
        await until(lambda: nothing_pending(spy, name))
        await eventually(lambda: not intake.holdings.held)


def _refusals(server: Redis) -> int:
    """Count the scripts that failed."""
    facts = server.execute("INFO", "commandstats").get("cmdstat_eval", {})
    return int(facts.get("failed_calls", 0))
