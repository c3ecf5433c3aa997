"""Faults of NATS under load: restarts, killed servers, a frozen broker.

Rows 2, 14, 15, 20, 24 and 25. The bounds are ten times the figures of
docs/reference/transports/nats.md.
"""

from pathlib import Path
from typing import Any

import pytest

from django_microservices.transports import JetStreamTransport, NATSTransport
from tests.brokers.nats import NATS
from tests.conftest import Figures

from . import scenarios
from .bench import Bench

BACK = 1.0  # the figure: seconds until the server consumes again
UNSEEN = 0.3  # the figure: seconds beside the downtime whose events may be lost
SEEN = 10.0  # the figure: seconds until a mute broker is seen
ENDS = (NATS.stop, NATS.kill)  # SIGTERM, SIGKILL


@pytest.fixture(params=[NATSTransport, JetStreamTransport])
def bench(private_nats: NATS, request: pytest.FixtureRequest, figure: Figures) -> Bench:
    """Give a bench for each of the two transports."""
    return Bench(private_nats, request.param, figure, group="tested")


@pytest.fixture
def nats(private_nats: NATS, figure: Figures) -> Bench:
    """Give a bench for NATS itself."""
    return Bench(private_nats, NATSTransport, figure, group="tested")


@pytest.fixture
def jetstream(private_nats: NATS, figure: Figures) -> Bench:
    """Give a bench for JetStream, which soon brings again what nobody acknowledged."""
    return Bench(private_nats, JetStreamTransport, figure, group="tested", ack_wait=1.5)


async def test_nats_restarts(nats: Bench) -> None:
    """Row 15: little beside the downtime is lost, and it is soon back by itself."""
    seen = nats.seen
    async with scenarios.restarted(nats, ENDS, back=BACK) as (load, away):
        await nats.until(lambda: seen[-1] == max(load.accepted))
    scenarios.little_is_lost(nats, load, away, UNSEEN)
    assert len(set(seen)) == len(seen)


async def test_jetstream_restarts(jetstream: Bench) -> None:
    """Row 14: what was confirmed is handled, all of it."""
    outages = scenarios.restarted(jetstream, ENDS, back=BACK, retries=True, named=True)
    async with outages as (load, _):
        await jetstream.until(lambda: not load.lost(jetstream.seen))
    assert load.accepted.keys() == {*jetstream.seen} == load.all


async def test_pending_calls_fail_at_once(bench: Bench) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    await scenarios.pending_calls_fail_at_once(bench, (NATS.kill,))


async def test_frozen_broker(bench: Bench) -> None:
    """Row 20: both ends find out, here five times as soon, and are back afterwards."""
    wire: Any = bench.kind()
    servers = wire.servers
    silence = servers.ping_interval * (servers.max_ping_out + 1)
    assert silence + scenarios.LATE <= SEEN
    interval = servers.ping_interval / 5
    await scenarios.frozen(bench, silence / 5, ping_interval=interval)


async def test_leaving_while_the_broker_is_frozen(bench: Bench) -> None:
    """Nobody waits for ever for one who is mute."""
    await scenarios.leaving_while_frozen(bench)


async def test_killed_servers_lose_nothing(jetstream: Bench, tmp_path: Path) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    await scenarios.killed_servers_lose_nothing(
        jetstream, tmp_path / "seen", named=True
    )


async def test_server_that_stops_answers_all(bench: Bench, tmp_path: Path) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    await scenarios.stopping_server_answers_all(bench, tmp_path / "seen")
