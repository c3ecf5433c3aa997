"""Faults of MQTT under load: restarts, killed servers, a frozen broker, poison.

Rows 2, 18, 20, 24, 25, 34 and 52. The bounds are ten times the figures of
docs/reference/transports/mqtt.md.
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

from django_microservices import (
    Client,
    ConnectionLost,
    MicroserviceError,
    Status,
    event_pattern,
    message_pattern,
)
from django_microservices.endpoints.server import Server
from django_microservices.transports import MQTTTransport
from django_microservices.wire.status import StatusStream
from tests.brokers.mosquitto import Mosquitto
from tests.endpoints.ends import client_of, running, server_of, until
from tests.transports.mqtt_peer import Peer

from .mqtt_served import PATTERN

RATE = 300  # events a second
DOWN = 0.5  # seconds
SOON = 60.0  # seconds
BACK = 1.0  # the figure: seconds until the server consumes again
UNSEEN = 0.3  # the figure: seconds beside the downtime whose events may be lost
ENDS = (Mosquitto.stop, Mosquitto.kill)  # SIGTERM, SIGKILL
ROOT = Path(__file__).resolve().parents[2]
VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])


def durable(broker: Mosquitto, version: int, group: str = "tested") -> dict[str, Any]:
    """Return the options of a server whose session the broker keeps."""
    return {
        "url": broker.url,
        "group": group,
        "protocol_version": version,
        "client_id": "tested-1",
        "clean": False,
        "subscribe_options": {"qos": 1},
    }


class Load:
    """Emits numbers at a rate; ``accepted`` are those that ``aemit`` took, and when.

    With ``retries`` each is emitted until it is taken.
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
        while number not in self.accepted:
            try:
                await self.client.aemit(PATTERN, number)
            except MicroserviceError:
                self.refused += 1
                if not self.retries:
                    return
                await asyncio.sleep(0.05)
            else:
                self.accepted[number] = loop.time()


@contextlib.asynccontextmanager
async def calling(broker: Mosquitto, **options: Any) -> AsyncIterator[Client]:
    """Give a client that is closed with the block."""
    client = client_of(MQTTTransport(url=broker.url, group="calling", **options))
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


async def restart(
    broker: Mosquitto, end: Callable[[Mosquitto], None]
) -> tuple[float, float]:
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
    await until(lambda: seen and max(seen[-50:]) > first and server.is_ready)
    return time() - begun


# --- restarts under load ----------------------------------------------------------


@VERSIONS
async def test_restarts_with_qos_0(private_mqtt: Mosquitto, version: Any) -> None:
    """Row 18: little beside the downtime is lost, and it is soon back by itself."""
    seen: list[int] = []
    wire = MQTTTransport(url=private_mqtt.url, group="tested", protocol_version=version)
    server = server_of(wire, noting(seen))
    away = []
    async with (
        running(server),
        calling(private_mqtt, protocol_version=version) as client,
    ):
        async with Load(client) as load:
            for end in ENDS:
                await until(lambda: len(seen) > RATE // 2)
                away.append(await restart(private_mqtt, end))
                assert await is_back(server, seen, load) < 10 * BACK
        await until(lambda: seen[-1] == max(load.accepted))
    for number in set(load.accepted) - set(seen):
        when = load.accepted[number]
        assert any(
            went - 10 * UNSEEN < when < came + 10 * UNSEEN for went, came in away
        )
    assert len(set(seen)) == len(seen)
    assert load.refused  # while it was away emitting said so


@VERSIONS
async def test_restarts_with_qos_1(private_mqtt: Mosquitto, version: Any) -> None:
    """Row 18: in a session that is kept nothing confirmed is lost over SIGTERM."""
    load, seen, _ = await restarted(private_mqtt, durable(private_mqtt, version, ""))
    assert {*seen} == load.accepted.keys() == {*range(1, load.number + 1)}


@VERSIONS
async def test_restarts_with_a_group(private_mqtt: Mosquitto, version: Any) -> None:
    """Row 18: mosquitto does not save who shares, and forgets until they are back."""
    load, seen, away = await restarted(private_mqtt, durable(private_mqtt, version))
    for number in load.accepted.keys() - {*seen}:
        when = load.accepted[number]
        assert any(came - 10 * UNSEEN < when < came + 10 * BACK for _, came in away)


async def restarted(
    broker: Mosquitto, options: dict[str, Any]
) -> tuple[Load, list[int], list[tuple[float, float]]]:
    """Restart the broker twice, under events of QoS 1 to a server with ``options``."""
    seen: list[int] = []
    away = []
    server = server_of(MQTTTransport(**options), noting(seen))
    async with (
        running(server),
        calling(broker, publish_options={"qos": 1}) as client,
    ):
        async with Load(client, retries=True) as load:
            for _ in range(2):
                await until(lambda: len(seen) > RATE // 2)
                away.append(await restart(broker, Mosquitto.stop))
                assert await is_back(server, seen, load) < 10 * BACK
        last = max(load.accepted)
        await until(lambda: last in seen)
        if not options["group"]:
            await until(lambda: load.accepted.keys() <= {*seen})
    assert load.refused
    return load, seen, away


async def test_broker_that_is_killed(private_mqtt: Mosquitto) -> None:
    """Row 18: after SIGKILL what mosquitto had not saved is gone; it is soon back."""
    seen: list[int] = []
    server = server_of(MQTTTransport(**durable(private_mqtt, 5)), noting(seen))
    options: Any = {"protocol_version": 5, "publish_options": {"qos": 1}}
    async with running(server), calling(private_mqtt, **options) as client:
        async with Load(client, retries=True) as load:
            await until(lambda: len(seen) > RATE // 2)
            await restart(private_mqtt, Mosquitto.kill)
            assert await is_back(server, seen, load) < 10 * BACK
        await until(lambda: seen[-1] >= load.number)


async def test_pending_calls_fail_at_once(private_mqtt: Mosquitto) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    entered: list[int] = []

    @message_pattern("hang")
    async def hang(data: int) -> None:
        entered.append(data)
        await asyncio.Event().wait()

    @message_pattern("echo")
    async def echo(data: int) -> int:
        return data

    server = server_of(MQTTTransport(url=private_mqtt.url, group="tested"), hang, echo)
    async with running(server), calling(private_mqtt) as client:
        calls = [
            asyncio.ensure_future(client.asend("hang", number, timeout=None))
            for number in range(80)
        ]
        await until(lambda: len(entered) == len(calls))
        await asyncio.to_thread(private_mqtt.kill)
        async with asyncio.timeout(10 * 0.2):
            errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionLost}
        await until(lambda: not server.is_ready)
        with pytest.raises(MicroserviceError):
            await client.asend("echo", 1)
        await asyncio.to_thread(private_mqtt.start)
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


async def test_frozen_broker(private_mqtt: Mosquitto) -> None:
    """Row 20: both ends find out in ten seconds, and are back when it goes on."""

    @message_pattern("echo")
    async def echo(data: int) -> int:
        return data

    server = server_of(MQTTTransport(url=private_mqtt.url, group="tested"), echo)
    async with running(server), calling(private_mqtt) as client:
        await _answered(client)
        private_mqtt.freeze()
        try:
            async with asyncio.timeout(10 * 10.0):
                await asyncio.gather(_left(client.status), _left(server.status))
            assert not server.is_ready
        finally:
            private_mqtt.thaw()
        await _answered(client)
        await until(lambda: server.is_ready)


async def _left(statuses: StatusStream) -> None:
    """Return when an end says that it has no connection."""
    async for status in statuses:
        if status is not Status.CONNECTED:
            return


async def test_leaving_while_the_broker_is_frozen(private_mqtt: Mosquitto) -> None:
    """Nobody waits for ever for one who is mute."""
    wire = MQTTTransport(url=private_mqtt.url, group="tested")
    server = server_of(wire, noting([]))
    async with asyncio.timeout(10 * 5.0):
        async with running(server), calling(private_mqtt) as client:
            await client.aconnect()
            private_mqtt.freeze()
    private_mqtt.thaw()


# --- servers that are killed, or stop ---------------------------------------------


@contextlib.asynccontextmanager
async def served(options: dict[str, Any], path: Path) -> AsyncIterator[Process]:
    """Have a server in a process of its own, ready; end it with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.mqtt_served"),
        *(json.dumps(options), str(path)),
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
    """Return when the servers have noted more than so many."""
    await until(lambda: len(numbers(path)) > count)


@VERSIONS
async def test_killed_servers_lose_nothing(
    private_mqtt: Mosquitto, tmp_path: Path, version: Any
) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    path, kills = tmp_path / "seen", 3
    options = durable(private_mqtt, version)
    async with contextlib.AsyncExitStack() as stack:
        process = await stack.enter_async_context(served(options, path))
        client = await stack.enter_async_context(
            calling(private_mqtt, publish_options={"qos": 1})
        )
        async with Load(client, retries=True) as load:
            for kill in range(kills):
                await noted(path, (kill + 1) * 100)
                process.kill()
                await process.wait()
                process = await stack.enter_async_context(served(options, path))
        wanted = {*load.accepted}
        await until(lambda: wanted <= {*numbers(path)})
    seen = numbers(path)
    assert {*seen} == wanted == {*range(1, load.number + 1)}
    assert len(seen) - len(wanted) <= kills * 100  # what was in flight


@pytest.mark.parametrize("kept", [False, True])
async def test_server_that_stops_answers_all(
    private_mqtt: Mosquitto,
    tmp_path: Path,
    kept: bool,  # noqa: FBT001
) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    path = tmp_path / "seen"
    options = {"url": private_mqtt.url, "group": "tested"}
    if kept:
        options = durable(private_mqtt, 5)
    async with served(options, path) as process, calling(private_mqtt) as client:
        calls = [asyncio.ensure_future(client.asend("slow", n)) for n in range(50)]
        await until(lambda: len(numbers(path)) == len(calls))
        process.send_signal(signal.SIGTERM)
        assert sorted(await asyncio.gather(*calls)) == list(range(50))
        assert await asyncio.wait_for(process.wait(), SOON) == 0


@VERSIONS
async def test_server_that_stops_loses_no_event(
    private_mqtt: Mosquitto, tmp_path: Path, version: Any
) -> None:
    """Row 24: what comes while a server of a kept session is away waits for it."""
    path = tmp_path / "seen"
    options = durable(private_mqtt, version)
    async with served(options, path):
        pass  # from now on the broker keeps what comes
    async with calling(private_mqtt, publish_options={"qos": 1}) as client:
        async with Load(client, retries=True) as load:
            for stop in range(3):
                async with served(options, path) as process:
                    await noted(path, stop * 100 + 50)
                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(process.wait(), SOON) == 0
        async with served(options, path):
            await until(lambda: {*load.accepted} <= {*numbers(path)})
    assert {*numbers(path)} == {*range(1, load.number + 1)}


# --- poison, and what nobody should send ------------------------------------------


@VERSIONS
async def test_poison_is_buried_while_others_flow(
    private_mqtt: Mosquitto, version: Any
) -> None:
    """Row 34: it runs so often and no more, and holds nobody up."""
    seen: list[int] = []
    tries: list[int] = []

    @event_pattern("poison")
    async def poison(data: int) -> None:
        tries.append(data)
        raise RuntimeError("the poison")

    options = {**durable(private_mqtt, version), "redelivery_delay": 0.1}
    wire = MQTTTransport(**options, max_deliveries=3)
    confirmed: Any = {"publish_options": {"qos": 1}}
    async with (
        running(server_of(wire, noting(seen), poison)),
        calling(private_mqtt, **confirmed) as client,
        Peer(private_mqtt.url, version) as peer,
    ):
        await peer.subscribe("tested/dead/poison", qos=1)
        async with Load(client) as load:
            await until(lambda: len(seen) > 50)
            before = len(seen)
            for number in range(5):
                await client.aemit("poison", number)
            letters = await peer.bodies(5)
            await until(lambda: len(seen) > before + 50)
        await until(lambda: load.accepted.keys() <= {*seen})
    assert sorted(letter["data"] for letter in letters) == [*range(5)]
    assert sorted(tries) == sorted([*range(5)] * 3)
    assert len(seen) == len(load.accepted)  # none of the others came twice


async def test_hostile_topics(private_mqtt: Mosquitto) -> None:
    """Row 52: what would end a connection is refused, and nobody else is disturbed."""
    seen: list[int] = []
    wire = MQTTTransport(url=private_mqtt.url, group="tested")
    async with (
        running(server_of(wire, noting(seen))),
        calling(private_mqtt) as client,
    ):
        lost: list[Any] = []
        client.on("disconnect", lambda: lost.append(1))
        async with Load(client) as load:
            await until(lambda: len(seen) > 50)
            for name in ("#", "a/+", "$SYS/x", "a\0b", "a\r\nb", "", "x" * 65_536):
                with pytest.raises(ValueError, match="cannot be a topic"):
                    await client.aemit(name, 1)
                with pytest.raises(ValueError, match="cannot be a topic"):
                    await client.asend(name, 1)
            before = len(seen)
            await until(lambda: len(seen) > before + 50)
        assert not lost
        await until(lambda: len(seen) == load.number)
    assert seen == [*range(1, load.number + 1)]


@VERSIONS
async def test_hostile_messages(private_mqtt: Mosquitto, version: Any) -> None:
    """A server that listens to everything outlives whatever strangers publish."""
    seen: list[Any] = []

    @event_pattern("#", "+/b", "a/+")
    async def everything(data: Any) -> None:
        seen.append(data)

    options = {**durable(private_mqtt, version), "max_frame_size": 4096}
    server = server_of(MQTTTransport(**options, max_deliveries=1), everything)
    bodies = [b"", b"{", b"\xff", b"[" * 3000, b'{"id":{}}', b"x" * 10_000]
    async with running(server), Peer(private_mqtt.url) as peer:
        lost: list[Any] = []
        server.on("disconnect", lambda: lost.append(1))
        for topic in ("a/b", "/", "//", "a/reply", "x" * 60_000, "größe 👍", '{"a":1}'):
            for body in bodies:
                for qos in (0, 1):
                    await peer.publish(topic, body, qos=qos)
        await peer.publish("end", b'"the end"')
        await until(lambda: "the end" in seen)
        assert not lost
        assert server.is_ready
