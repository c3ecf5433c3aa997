"""Faults of RabbitMQ under load: restarts, killed servers, a frozen or full broker.

Rows 2, 13, 20 to 22, 24, 25 and 34. The bounds are ten times the figures of
docs/reference/transports/rabbitmq.md.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pamqp import commands

from django_microservices import MessageTimeout, Status, event_pattern
from django_microservices.endpoints.server import Server
from django_microservices.transports import RabbitMQTransport
from django_microservices.transports.rabbitmq import connection, transport
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ
from tests.conftest import Figures
from tests.endpoints.ends import server_of
from tests.transports.rabbitmq_peer import Peer

from . import scenarios
from .bench import Bench
from .load import SOON, numbers

BACK = 3.0  # the figure: seconds until the server consumes again
SEEN = 10.0  # the figure: seconds until a mute broker is seen
ENDS = (RabbitMQ.stop, RabbitMQ.kill)  # SIGTERM, SIGKILL


@pytest.fixture
def bench(private_rabbitmq: RabbitMQ, figure: Figures) -> Bench:
    """Give a bench with names that no other test has, and time: it starts slowly."""
    name = f"t{new_id()}"
    slow: dict[str, Any] = {"patience": 120.0, "down": 0.0}
    return Bench(
        private_rabbitmq, RabbitMQTransport, figure, name=name, group=name, **slow
    )


QUORUM = {"arguments": {"x-queue-type": "quorum"}}


class FailingBench(Bench):
    """One whose server has a quorum queue, and fails at each third number at first."""

    def server(self, **options: Any) -> Server:
        """Make the server."""

        @event_pattern(self.pattern)
        async def noted(data: int) -> None:
            if data % 3 == 0 and data not in self.tries:
                self.tries.append(data)
                raise RuntimeError("not yet")
            self.seen.append(data)

        return server_of(self.kind(**{**self.options, **options}), noted)


def declare(bench: Bench) -> None:
    """Have the queue, bound, before a server does."""
    with Peer(bench.broker.url) as peer:
        peer.call(commands.Queue.Declare(queue=bench.name, durable=True))
        peer.call(commands.Queue.Bind(0, bench.name, "amq.topic", bench.pattern))


def letters(bench: Bench) -> list[Any]:
    """Take the dead letters; their reasons."""
    queue = f"{bench.name}.dead"
    with Peer(bench.broker.url) as peer:
        peer.call(commands.Queue.Declare(queue=queue, durable=True))
        found = peer.drain(queue)
    return [(one.properties.headers or {})["x-dm-reason"] for one in found]


async def test_restarts(bench: Bench) -> None:
    """Row 13: nothing confirmed is lost, little comes twice, and it is soon back."""
    async with scenarios.restarted(bench, ENDS, back=BACK, retries=True) as (load, _):
        await bench.until(lambda: not load.lost(bench.seen))
    assert {*bench.seen} == load.accepted.keys() == load.all
    assert len(bench.seen) - len(load.accepted) <= 2 * (100 + load.unsure)


async def test_restarts_while_events_rest(
    private_rabbitmq: RabbitMQ, figure: Figures
) -> None:
    """Row 13: what rests for another try, of a quorum queue, outlives them as well."""
    bench = FailingBench(
        private_rabbitmq,
        RabbitMQTransport,
        figure,
        name=f"t{new_id()}",
        patience=120.0,
        down=0.0,
        queue_options=QUORUM,
        max_deliveries=100,
    )
    bench.options["group"] = bench.name
    async with scenarios.restarted(bench, ENDS, back=BACK, retries=True) as (load, _):
        await bench.until(lambda: not load.lost(bench.seen))
    assert {*bench.seen} == load.accepted.keys() == load.all
    assert bench.tries


async def test_pending_calls_fail_at_once(bench: Bench) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    await scenarios.pending_calls_fail_at_once(bench, (RabbitMQ.kill,))


# --- a broker that is mute, or full -----------------------------------------------


async def test_frozen_broker(bench: Bench) -> None:
    """Row 20: both ends find out, here with short heartbeats, and are back after."""
    silence = connection.MISSED * transport.HEARTBEAT + connection.CHECK
    assert silence + scenarios.LATE <= SEEN
    sockets, silence = {"heartbeat_interval_in_seconds": 1}, connection.MISSED * 1
    await scenarios.frozen(bench, silence + connection.CHECK, socket_options=sockets)


async def test_leaving_while_the_broker_is_frozen(bench: Bench) -> None:
    """Nobody waits for ever for one who is mute."""
    await scenarios.leaving_while_frozen(bench)


async def test_blocked_publishers(bench: Bench, private_rabbitmq: RabbitMQ) -> None:
    """Row 22: while memory is short publishers wait in vain, and keep little.

    Who only consumes goes on, so that what fills the memory can be taken out.
    """
    declare(bench)
    async with bench.calling() as client:
        for number in range(20):
            await client.aemit(bench.pattern, number)
        async with alarm(private_rabbitmq), bench.serving():
            with pytest.raises(MessageTimeout):
                await client.aemit(bench.pattern, 100, timeout=0.5)
            await bench.until(lambda: client.status == Status.BLOCKED)
            big = "x" * 100_000
            waiting = [client.aemit(bench.name, big, timeout=0.5) for _ in range(200)]
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(error) for error in errors} == {MessageTimeout}
            assert client.unwrap().unsent < 1_000_000
            await bench.until(lambda: len(bench.seen) >= 20)
        await bench.until(lambda: client.status == Status.UNBLOCKED)
        await client.aemit(bench.name, 1)


@contextlib.asynccontextmanager
async def alarm(broker: RabbitMQ) -> AsyncIterator[None]:
    """Have the broker short of memory inside the block."""
    alarming = broker.memory_alarm()
    await asyncio.to_thread(alarming.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(alarming.__exit__, None, None, None)


# --- servers that are killed, or stop ---------------------------------------------


async def test_killed_servers_lose_nothing(bench: Bench, tmp_path: Path) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    declare(bench)
    await scenarios.killed_servers_lose_nothing(bench, tmp_path / "seen", kills=4)
    assert letters(bench) == []


async def test_replicas_that_stop_lose_nothing(bench: Bench, tmp_path: Path) -> None:
    """Row 24: replicas that are rolled take nothing twice and lose nothing."""
    file = tmp_path / "seen"
    async with contextlib.AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(bench.served(file)) for _ in range(2)
        ]
        client = await stack.enter_async_context(bench.calling())
        async with bench.load(client, retries=True) as load:
            for number in range(2):
                await bench.noted(file)
                processes[number].send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(processes[number].wait(), SOON) == 0
                processes.append(await stack.enter_async_context(bench.served(file)))
        await bench.until(lambda: not load.lost(numbers(file)))
    assert sorted(numbers(file)) == sorted(load.accepted)


async def test_server_that_stops_answers_all(bench: Bench, tmp_path: Path) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    await scenarios.stopping_server_answers_all(bench, tmp_path / "seen")


# --- poison -----------------------------------------------------------------------


async def test_poison_is_buried_while_others_flow(bench: Bench) -> None:
    """Row 34: it runs so often and no more, and holds nobody up."""
    reasons: list[Any] = []

    async def buried() -> None:
        while len(reasons) < len(scenarios.POISON):
            await bench.sees(1)
            reasons.extend(letters(bench))

    await scenarios.poison_is_buried(
        bench, buried, tries=3, client={}, max_deliveries=3
    )
    assert reasons == ["RuntimeError"] * len(scenarios.POISON)
