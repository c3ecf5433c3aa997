"""Faults of Redis under load: restarts, killed workers, a frozen server, poison.

Rows 2, 16, 17, 20, 24, 25 and 34. The bounds are ten times the figures of
docs/reference/transports/redis.md.
"""

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from django_microservices.transports import RedisStreamsTransport, RedisTransport
from django_microservices.transports.redis import connection
from tests.brokers.redis import Redis
from tests.conftest import Figures

from . import scenarios
from .bench import Bench
from .broker_served import IN_FLIGHT
from .load import RATE, SOON, numbers

BACK = 0.5  # the figure: seconds until the server consumes again
UNSEEN = 0.3  # the figure: seconds whose events may be lost
SEEN = 10.0  # seconds in which a mute Redis must be seen
CLAIM_AFTER = 1.0
ENDS = (Redis.stop, Redis.kill)  # SIGTERM, SIGKILL


@pytest.fixture
def pubsub(private_redis: Redis, figure: Figures) -> Bench:
    """Give a bench for pub/sub."""
    return Bench(private_redis, RedisTransport, figure, patience=SOON)


@pytest.fixture
def streams(private_redis: Redis, figure: Figures) -> Bench:
    """Give a bench for streams."""
    return Bench(
        private_redis,
        RedisStreamsTransport,
        figure,
        patience=SOON,
        group="workers",
        claim_after=CLAIM_AFTER,
    )


async def test_pubsub_outlives_restarts(pubsub: Bench) -> None:
    """Row 16: consuming again at once, little that was taken lost."""
    seen = pubsub.seen
    async with scenarios.restarted(pubsub, ENDS, back=BACK) as (load, away):
        await pubsub.until(lambda: seen[-1] == max(load.accepted))
    scenarios.little_is_lost(pubsub, load, away, UNSEEN)
    assert len(set(seen)) == len(seen)


async def test_requests_fail_and_come_back(pubsub: Bench) -> None:
    """Row 2: what is pending when Redis goes fails; the next ones are answered."""
    await scenarios.pending_calls_fail_at_once(pubsub, ENDS)


@pytest.mark.parametrize(
    "kind", ["pubsub", "streams"], ids=["RedisTransport", "RedisStreamsTransport"]
)
async def test_frozen_redis(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 20: it is noticed on both ends, here four times as soon; then it goes on."""
    silence = connection.SILENCE + 2 * connection.PATIENCE
    assert silence + scenarios.LATE <= SEEN
    for name in ("SILENCE", "PATIENCE"):
        monkeypatch.setattr(connection, name, getattr(connection, name) / 4)
    await scenarios.frozen(request.getfixturevalue(kind), silence / 4)


# --- streams ---


async def test_streams_lose_nothing_in_restarts(streams: Bench) -> None:
    """Row 17: all that ``aemit`` took is handled."""
    async with scenarios.restarted(streams, ENDS, back=BACK) as (load, _):
        await streams.until(lambda: not load.lost(streams.seen))
    assert len(load.accepted) > RATE // 2


async def test_streams_lose_nothing_with_their_workers(
    streams: Bench, tmp_path: Path
) -> None:
    """Rows 24, 25: workers are killed, and ended, under load: all is handled."""
    file, ends = tmp_path / "noted", (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
    async with streams.calling() as client, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(streams.served(file))
        async with streams.load(client) as load:
            for number in ends:
                await streams.noted(file, 20)
                second = await stack.enter_async_context(streams.served(file))
                first.send_signal(number)
                code = await asyncio.wait_for(first.wait(), SOON)
                assert code == (0 if number is signal.SIGTERM else -number)
                first = second
        await streams.until(lambda: not load.lost(numbers(file)))
    assert not load.refused
    again = len(numbers(file)) - len(set(numbers(file)))
    assert again <= len(ends) * IN_FLIGHT


async def test_what_a_dead_worker_had_is_claimed_in_time(
    streams: Bench, private_redis: Redis
) -> None:
    """Row 17: it is another one's soon after the limit."""
    execute, pattern = private_redis.execute, streams.pattern
    execute("XGROUP", "CREATE", pattern, "workers", "0", "MKSTREAM")
    for number in range(50):
        execute("XADD", pattern, "*", "data", number)
    execute("XREADGROUP", "GROUP", "workers", "dead", "STREAMS", pattern, ">")
    begun = time.monotonic()
    async with streams.serving():
        await streams.sees(50)
    took = time.monotonic() - begun
    streams.figure("17", "claimed from the dead", took, CLAIM_AFTER + 1)


async def test_poison_holds_nobody_up(streams: Bench, private_redis: Redis) -> None:
    """Row 34: what always fails becomes a dead letter; the others have passed it."""

    async def buried() -> None:
        dead = f"{streams.pattern}.dead"
        await streams.until(lambda: private_redis.execute("XLEN", dead) == 5)

    await scenarios.poison_is_buried(
        streams, buried, tries=5, client={}, claim_after=30.0
    )


async def test_flushed_redis(streams: Bench, private_redis: Redis) -> None:
    """A Redis that has forgotten everything is served as a new one."""
    async with streams.serving() as server, streams.calling() as client:
        await client.aemit(streams.pattern, 1)
        await streams.until(lambda: streams.seen)
        private_redis.execute("FLUSHALL")
        await client.aemit(streams.pattern, 2)
        await streams.until(lambda: 2 in streams.seen)
        assert server.is_ready
