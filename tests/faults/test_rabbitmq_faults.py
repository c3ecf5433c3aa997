"""Faults of RabbitMQ under load: restarts, killed servers, a frozen or full broker.

Rows 2, 13, 20 to 22, 24, 25 and 34. The bounds are ten times the figures of
docs/reference/transports/rabbitmq.md.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from pamqp import commands

from django_microservices import (
    Client,
    ConnectionLost,
    MessageTimeout,
    MicroserviceError,
    NotConnected,
    Status,
    event_pattern,
    message_pattern,
)
from django_microservices.endpoints.server import Server
from django_microservices.transports import RabbitMQTransport
from django_microservices.wire.messages import new_id
from django_microservices.wire.status import StatusStream
from tests.brokers.rabbitmq import RabbitMQ
from tests.endpoints.ends import client_of, running, server_of
from tests.transports.rabbitmq_peer import Peer

from .rabbitmq_served import PREFETCH

RATE = 300  # events a second
SOON = 120.0  # seconds: it starts slowly
BACK = 3.0  # the figure: seconds until the server consumes again
SEEN = 10.0  # the figure: seconds until a mute broker is seen
ENDS = (RabbitMQ.stop, RabbitMQ.kill)  # SIGTERM, SIGKILL
ROOT = Path(__file__).resolve().parents[2]


class Load:
    """Emits numbers at a rate, each until the broker has confirmed it.

    ``unsure`` counts those of which it was not told whether it has them.
    """

    def __init__(self, client: Client, pattern: str) -> None:
        self.client = client
        self.pattern = pattern
        self.confirmed: set[int] = set()
        self.refused = 0
        self.unsure = 0
        self.number = 0
        self._emits: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, and wait for what is on its way."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self._emits)

    async def _run(self) -> None:
        while True:
            self.number += 1
            task = asyncio.create_task(self._emit(self.number))
            self._emits.add(task)
            task.add_done_callback(self._emits.discard)
            await asyncio.sleep(1 / RATE)

    async def _emit(self, number: int) -> None:
        while number not in self.confirmed:
            try:
                await self.client.aemit(self.pattern, number)
            except MicroserviceError as error:
                self.refused += 1
                self.unsure += not isinstance(error, NotConnected)
                await asyncio.sleep(0.05)
            else:
                self.confirmed.add(number)


class Bench:
    """A broker that may be harmed, and names that no other test has."""

    def __init__(self, broker: RabbitMQ) -> None:
        self.broker = broker
        self.name = f"t{new_id()}"
        self.pattern = f"{self.name}.noted"
        self.seen: list[int] = []

    @property
    def options(self) -> dict[str, Any]:
        """The options of a server."""
        return {"url": self.broker.url, "group": self.name}

    def server(self, *functions: Callable[..., Any], **options: Any) -> Server:
        """Make a server that notes the numbers, and offers more."""

        @event_pattern(self.pattern)
        async def noted(data: int) -> None:
            self.seen.append(data)

        wire = RabbitMQTransport(**{**self.options, **options})
        return server_of(wire, noted, *functions)

    @contextlib.asynccontextmanager
    async def calling(self, **options: Any) -> AsyncIterator[Client]:
        """Give a client that is closed with the block."""
        client = client_of(RabbitMQTransport(url=self.broker.url, **options))
        try:
            yield client
        finally:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[tuple[Client, Load]]:
        """Have numbers emitted inside the block."""
        async with self.calling() as client, Load(client, self.pattern) as load:
            yield client, load

    async def sees(self, count: int) -> None:
        """Wait until so many more numbers were noted."""
        wanted = len(self.seen) + count
        await until(lambda: len(self.seen) >= wanted)

    async def sees_newer_than(self, number: int) -> float:
        """Wait until a later one is noted; return the seconds."""
        time = asyncio.get_running_loop().time
        begun = time()
        await until(lambda: max(self.seen[-50:]) > number)
        return time() - begun

    def declare(self) -> None:
        """Have the queue, bound, before a server does."""
        with Peer(self.broker.url) as peer:
            peer.call(commands.Queue.Declare(queue=self.name, durable=True))
            peer.call(commands.Queue.Bind(0, self.name, "amq.topic", self.pattern))

    def letters(self) -> list[Any]:
        """Take the dead letters; their reasons."""
        queue = f"{self.name}.dead"
        with Peer(self.broker.url) as peer:
            peer.call(commands.Queue.Declare(queue=queue, durable=True))
            found = peer.drain(queue)
        return [(one.properties.headers or {})["x-dm-reason"] for one in found]


@pytest.fixture
def bench(private_rabbitmq: RabbitMQ) -> Bench:
    """Give a bench."""
    return Bench(private_rabbitmq)


async def until(condition: Callable[[], Any]) -> None:
    """Return as soon as a condition holds."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - whatever it looks at
            await asyncio.sleep(0.002)


# --- restarts under load ----------------------------------------------------------


async def test_restarts(bench: Bench) -> None:
    """Row 13: nothing confirmed is lost, little comes twice, and it is soon back."""
    server, seen = bench.server(), bench.seen
    async with running(server):
        async with bench.loaded() as (_, load):
            for end in ENDS:
                await bench.sees(RATE // 2)
                await asyncio.to_thread(end, bench.broker)
                await until(lambda: not server.is_ready)
                await asyncio.to_thread(bench.broker.start)
                assert await bench.sees_newer_than(load.number) < 10 * BACK
                assert server.is_ready
        await until(lambda: load.confirmed <= {*seen})
    assert {*seen} == load.confirmed == {*range(1, load.number + 1)}
    assert load.refused  # while it was away emitting said so
    assert len(seen) - len(load.confirmed) <= 2 * (100 + load.unsure)


async def test_pending_calls_fail_at_once(bench: Bench) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    entered: list[int] = []

    @message_pattern(f"{bench.name}.hang")
    async def hang(data: int) -> None:
        entered.append(data)
        await asyncio.Event().wait()

    @message_pattern(f"{bench.name}.echo")
    async def echo(data: int) -> int:
        return data

    server = bench.server(hang, echo)
    async with running(server), bench.calling() as client:
        calls = [
            asyncio.ensure_future(
                client.asend(f"{bench.name}.hang", number, timeout=None)
            )
            for number in range(80)
        ]
        await until(lambda: len(entered) == len(calls))
        await asyncio.to_thread(bench.broker.kill)
        async with asyncio.timeout(10 * 0.2):
            errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionLost}
        with pytest.raises(MicroserviceError):
            await client.asend(f"{bench.name}.echo", 1)
        await asyncio.to_thread(bench.broker.start)
        await answered(bench, client)
        assert server.is_ready


async def answered(bench: Bench, client: Client) -> None:
    """Ask until there is an answer."""
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(MicroserviceError):
                assert await client.asend(f"{bench.name}.echo", 1, timeout=1) == 1
                return
            await asyncio.sleep(0.01)


# --- a broker that is mute, or full -----------------------------------------------


async def test_frozen_broker(bench: Bench) -> None:
    """Row 20: both ends find out in ten seconds, and are back when it goes on."""

    @message_pattern(f"{bench.name}.echo")
    async def echo(data: int) -> int:
        return data

    server = bench.server(echo)
    async with running(server), bench.calling() as client:
        await answered(bench, client)
        bench.broker.freeze()
        try:
            async with asyncio.timeout(10 * SEEN):
                await asyncio.gather(left(client.status), left(server.status))
            assert not server.is_ready
        finally:
            bench.broker.thaw()
        await answered(bench, client)
        await until(lambda: server.is_ready)


async def left(statuses: StatusStream) -> None:
    """Return when an end says that it has no connection."""
    async for status in statuses:
        if status is not Status.CONNECTED:
            return


async def test_leaving_while_the_broker_is_frozen(bench: Bench) -> None:
    """Nobody waits for ever for one who is mute."""
    async with asyncio.timeout(10 * 5.0):
        async with running(bench.server()), bench.calling() as client:
            await client.aconnect()
            bench.broker.freeze()
    bench.broker.thaw()


async def test_blocked_publishers(bench: Bench) -> None:
    """Row 22: while memory is short publishers wait in vain, and keep little.

    Who only consumes goes on, so that what fills the memory can be taken out.
    """
    bench.declare()
    async with bench.calling() as client:
        for number in range(20):
            await client.aemit(bench.pattern, number)
        async with alarm(bench.broker), running(bench.server()):
            with pytest.raises(MessageTimeout):
                await client.aemit(bench.pattern, 100, timeout=0.5)
            await until(lambda: client.status == Status.BLOCKED)
            big = "x" * 100_000
            waiting = [client.aemit(bench.name, big, timeout=0.5) for _ in range(200)]
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(error) for error in errors} == {MessageTimeout}
            assert client.unwrap().unsent < 1_000_000
            await until(lambda: len(bench.seen) >= 20)
        await until(lambda: client.status == Status.UNBLOCKED)
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


@contextlib.asynccontextmanager
async def served(bench: Bench, path: Path) -> AsyncIterator[Process]:
    """Have a server in a process of its own, ready; end it with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.rabbitmq_served"),
        *(json.dumps(bench.options), str(path)),
        cwd=ROOT,
        env=os.environ | {"PYTHONASYNCIODEBUG": ""},
        stdin=DEVNULL,
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SOON):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def numbers(path: Path) -> list[int]:
    """Return what the servers noted; a line that is cut off was not noted."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line[-1:] == "\n"]


async def noted(path: Path, count: int) -> None:
    """Wait until the servers noted so many more."""
    wanted = len(numbers(path)) + count
    await until(lambda: len(numbers(path)) >= wanted)


async def test_killed_servers_lose_nothing(bench: Bench, tmp_path: Path) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    path, kills = tmp_path / "seen", 4
    bench.declare()
    async with contextlib.AsyncExitStack() as stack:
        process = await stack.enter_async_context(served(bench, path))
        async with bench.loaded() as (_, load):
            for _ in range(kills):
                await noted(path, 100)
                process.kill()
                await process.wait()
                process = await stack.enter_async_context(served(bench, path))
        await until(lambda: load.confirmed <= {*numbers(path)})
    seen = numbers(path)
    assert {*seen} == load.confirmed == {*range(1, load.number + 1)}
    assert len(seen) - len(load.confirmed) <= kills * PREFETCH
    assert bench.letters() == []


async def test_replicas_that_stop_lose_nothing(bench: Bench, tmp_path: Path) -> None:
    """Row 24: replicas that are rolled take nothing twice and lose nothing."""
    path = tmp_path / "seen"
    async with contextlib.AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(served(bench, path)) for _ in range(2)
        ]
        async with bench.loaded() as (_, load):
            for number in range(2):
                await noted(path, 100)
                processes[number].send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(processes[number].wait(), SOON) == 0
                processes.append(await stack.enter_async_context(served(bench, path)))
        await until(lambda: load.confirmed <= {*numbers(path)})
    assert sorted(numbers(path)) == sorted(load.confirmed)


async def test_server_that_stops_answers_all(bench: Bench, tmp_path: Path) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    path = tmp_path / "seen"
    async with served(bench, path) as process, bench.calling() as client:
        calls = [
            asyncio.ensure_future(client.asend(f"{bench.name}.slow", number))
            for number in range(PREFETCH)
        ]
        await until(lambda: len(numbers(path)) == len(calls))
        process.send_signal(signal.SIGTERM)
        assert sorted(await asyncio.gather(*calls)) == list(range(PREFETCH))
        assert await asyncio.wait_for(process.wait(), SOON) == 0


# --- poison -----------------------------------------------------------------------


async def test_poison_is_buried_while_others_flow(bench: Bench) -> None:
    """Row 34: it runs so often and no more, and holds nobody up."""
    tries: list[int] = []

    @event_pattern(f"{bench.name}.poison")
    async def poison(data: int) -> None:
        tries.append(data)
        message = "the poison"
        raise RuntimeError(message)

    server = bench.server(poison, max_deliveries=3, redelivery_delay=0.1)
    async with running(server), bench.loaded() as (client, load):
        await until(lambda: len(bench.seen) > 50)
        for number in range(5):
            await client.aemit(f"{bench.name}.poison", number)
        letters: list[Any] = []
        while len(letters) < 5:
            await bench.sees(1)
            letters += bench.letters()
    assert letters == ["RuntimeError"] * 5
    assert sorted(tries) == sorted([*range(5)] * 3)
    assert load.refused == 0
