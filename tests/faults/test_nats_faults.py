"""Faults of NATS under load: restarts, killed servers, a frozen broker.

The bounds are ten times the figures of docs/reference/transports/nats.md.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from django_microservices import (
    Client,
    ConnectionLost,
    MicroserviceError,
    Status,
    event_pattern,
    message_pattern,
)
from django_microservices.endpoints.config import ClientConfig
from django_microservices.endpoints.server import Server
from django_microservices.transports import (
    JetStreamTransport,
    NATSTransport,
    Transport,
)
from django_microservices.wire.status import StatusStream
from tests.brokers.nats import NATS
from tests.endpoints.ends import running, server_of, until

from .nats_served import PATTERN

RATE = 300  # events a second
DOWN = 0.5  # seconds
SOON = 60.0  # seconds
BACK = 1.0  # the figure: seconds until the server consumes again
UNSEEN = 0.3  # the figure: seconds beside the downtime whose events may be lost
ENDS = (NATS.stop, NATS.kill)  # SIGTERM, SIGKILL
WIRES = [NATSTransport, JetStreamTransport]
ROOT = Path(__file__).resolve().parents[2]


class Load:
    """Emits numbers at a rate; ``accepted`` are those that ``aemit`` took, and when.

    With ``retries`` each is emitted, under its own id, until it is taken.
    """

    def __init__(self, client: Client, *, retries: bool = False) -> None:
        self.client = client
        self.retries = retries
        self.accepted: dict[int, float] = {}
        self.refused = 0
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
        loop = asyncio.get_running_loop()
        options = {"message_id": number}
        while number not in self.accepted:
            begun = loop.time()
            try:
                await self.client.aemit(PATTERN, number, options=options)
            except MicroserviceError:
                self.refused += 1
                if not self.retries:
                    return
                await asyncio.sleep(0.05)
            else:
                self.accepted[number] = begun


@contextlib.asynccontextmanager
async def calling(transport: Transport) -> AsyncIterator[Client]:
    """Give a client that is closed with the block."""
    config = ClientConfig(transport)
    client = Client("tested", lambda: config)
    try:
        yield client
    finally:
        await client.aclose()


def noting(seen: list[int]) -> Callable[..., Any]:
    """Make a handler that notes the numbers."""

    @event_pattern(PATTERN)
    async def noted(data: int) -> None:
        seen.append(data)

    return noted


async def restart(broker: NATS, end: Callable[[NATS], None]) -> tuple[float, float]:
    """Have the broker be away for a while; return when it went and came."""
    time = asyncio.get_running_loop().time
    went = time()
    await asyncio.to_thread(end, broker)
    await asyncio.sleep(DOWN)
    await asyncio.to_thread(broker.start)
    return went, time()


async def is_back(server: Server, seen: list[int], load: Load) -> float:
    """Wait until what is emitted from now on is handled; return the seconds."""
    time = asyncio.get_running_loop().time
    begun, first = time(), load.number
    await until(lambda: seen and max(seen[-50:]) > first)
    assert server.is_ready
    return time() - begun


# --- restarts under load ----------------------------------------------------------


async def test_nats_restarts(private_nats: NATS) -> None:
    """Row 15: little beside the downtime is lost, and it is soon back by itself."""
    seen: list[int] = []
    wire = NATSTransport(url=private_nats.url, group="tested")
    server = server_of(wire, noting(seen))
    away = []
    async with running(server), calling(wire) as client:
        async with Load(client) as load:
            for end in ENDS:
                await until(lambda: len(seen) > RATE // 2)
                away.append(await restart(private_nats, end))
                assert await is_back(server, seen, load) < 10 * BACK
        await until(lambda: seen[-1] == max(load.accepted))
    lost = set(load.accepted) - set(seen)
    for number in lost:
        when = load.accepted[number]
        assert any(
            went - 10 * UNSEEN < when < came + 10 * UNSEEN for went, came in away
        )
    assert len(set(seen)) == len(seen)
    assert load.refused  # while it was away emitting said so


async def test_jetstream_restarts(private_nats: NATS) -> None:
    """Row 14: what was confirmed is handled, all of it."""
    seen: list[int] = []
    options: dict[str, Any] = {"url": private_nats.url, "group": "tested"}
    wire = JetStreamTransport(**options, ack_wait=2.0)
    server = server_of(wire, noting(seen))
    async with running(server), calling(JetStreamTransport(**options)) as client:
        async with Load(client, retries=True) as load:
            for end in ENDS:
                await until(lambda: len(seen) > RATE // 2)
                await restart(private_nats, end)
                assert await is_back(server, seen, load) < 10 * BACK
        await until(lambda: load.accepted.keys() <= {*seen})
    assert load.accepted.keys() == {*seen} == {*range(1, load.number + 1)}
    assert load.refused


@pytest.mark.parametrize("wire", WIRES)
async def test_pending_calls_fail_at_once(
    private_nats: NATS, wire: type[NATSTransport]
) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    entered: list[int] = []

    @message_pattern("hang")
    async def hang(data: int) -> None:
        entered.append(data)
        await asyncio.Event().wait()

    @message_pattern("echo")
    async def echo(data: int) -> int:
        return data

    transport = wire(url=private_nats.url, group="tested")
    server = server_of(transport, hang, echo)
    async with running(server), calling(transport) as client:
        calls = [
            asyncio.ensure_future(client.asend("hang", number, timeout=None))
            for number in range(80)
        ]
        await until(lambda: len(entered) == len(calls))
        await asyncio.to_thread(private_nats.kill)
        async with asyncio.timeout(10 * 0.2):
            errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionLost}
        await until(lambda: not server.is_ready)
        with pytest.raises(MicroserviceError):
            await client.asend("echo", 1)
        await asyncio.to_thread(private_nats.start)
        await _answered(client)
        assert server.is_ready


async def _answered(client: Client) -> None:
    """Ask until there is an answer."""
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(MicroserviceError):
                assert await client.asend("echo", 1, timeout=1) == 1
                return
            await asyncio.sleep(0.01)


# --- a broker that is mute --------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
async def test_frozen_broker(private_nats: NATS, wire: type[NATSTransport]) -> None:
    """Row 20: both ends find out in ten seconds, and are back when it goes on."""

    @message_pattern("echo")
    async def echo(data: int) -> int:
        return data

    transport = wire(url=private_nats.url, group="tested")
    server = server_of(transport, echo)
    async with running(server), calling(transport) as client:
        await _answered(client)
        private_nats.freeze()
        try:
            async with asyncio.timeout(10 * 10.0):
                await _left(client.status)
                await _left(server.status)
            assert not server.is_ready
        finally:
            private_nats.thaw()
        await _answered(client)
        await until(lambda: server.is_ready)


async def _left(statuses: StatusStream) -> None:
    """Return when an end says that it has no connection."""
    async for status in statuses:
        if status is not Status.CONNECTED:
            return


@pytest.mark.parametrize("wire", WIRES)
async def test_leaving_while_the_broker_is_frozen(
    private_nats: NATS, wire: type[NATSTransport]
) -> None:
    """Nobody waits for ever for one who is mute."""
    transport = wire(url=private_nats.url, group="tested")
    server = server_of(transport, noting([]))
    async with asyncio.timeout(10 * 5.0):
        async with running(server), calling(transport) as client:
            await client.aconnect()
            private_nats.freeze()
    private_nats.thaw()


# --- servers that are killed, or stop ---------------------------------------------


@contextlib.asynccontextmanager
async def served(wire: str, url: str, path: Path) -> AsyncIterator[Process]:
    """Have a server in a process of its own, ready; end it with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.nats_served", wire, url, str(path)),
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


async def grown(path: Path, beyond: int) -> None:
    """Return when the servers have noted more than so many."""
    await until(lambda: len(numbers(path)) > beyond)


async def test_killed_servers_lose_nothing(private_nats: NATS, tmp_path: Path) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    path, kills = tmp_path / "seen", 3
    wire = JetStreamTransport(url=private_nats.url, group="client")
    async with contextlib.AsyncExitStack() as stack:

        async def start() -> Process:
            return await stack.enter_async_context(
                served("JetStreamTransport", private_nats.url, path)
            )

        process = await start()
        client = await stack.enter_async_context(calling(wire))
        async with Load(client, retries=True) as load:
            for kill in range(kills):
                await grown(path, (kill + 1) * 100)
                process.kill()
                await process.wait()
                process = await start()
        wanted = {*load.accepted}
        await until(lambda: wanted <= {*numbers(path)})
    seen = numbers(path)
    assert {*seen} == wanted == {*range(1, load.number + 1)}
    assert len(seen) - len(wanted) <= kills * 100  # what was in flight


@pytest.mark.parametrize("wire", WIRES)
async def test_server_that_stops_answers_all(
    private_nats: NATS, tmp_path: Path, wire: type[NATSTransport]
) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    path = tmp_path / "seen"
    transport = wire(url=private_nats.url, group="client")
    async with (
        served(wire.__name__, private_nats.url, path) as process,
        calling(transport) as client,
    ):
        calls = [asyncio.ensure_future(client.asend("slow", n)) for n in range(50)]
        await until(lambda: len(numbers(path)) == len(calls))
        process.send_signal(signal.SIGTERM)
        assert sorted(await asyncio.gather(*calls)) == list(range(50))
        assert await asyncio.wait_for(process.wait(), SOON) == 0
