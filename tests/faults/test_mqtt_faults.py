"""Faults of MQTT under load: restarts, killed servers, a frozen broker, poison.

Rows 2, 18, 20, 24, 25, 34 and 52. The bounds are ten times the figures of
docs/reference/transports/mqtt.md.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_microservices import Status, event_pattern
from django_microservices.endpoints.server import Server
from django_microservices.transports import MQTTTransport
from django_microservices.transports.mqtt import connection
from tests.brokers.mosquitto import Mosquitto
from tests.conftest import Figures
from tests.endpoints.ends import running, server_of
from tests.transports.mqtt_peer import Peer

from . import scenarios
from .bench import Bench
from .load import SOON, numbers

BACK = 1.0  # the figure: seconds until the server consumes again
UNSEEN = 0.3  # the figure: seconds beside the downtime whose events may be lost
SEEN = 10.0  # the figure: seconds until a mute broker is seen
ENDS = (Mosquitto.stop, Mosquitto.kill)  # SIGTERM, SIGKILL
STOPS = (Mosquitto.stop, Mosquitto.stop)
BURST = 200  # events, of which the broker holds most for a while
VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])
CONFIRMED: dict[str, Any] = {"publish_options": {"qos": 1}}

Kept = Callable[..., Bench]


@pytest.fixture
def bench(private_mqtt: Mosquitto, figure: Figures) -> Bench:
    """Give a bench for messages of QoS 0, in a group."""
    return Bench(private_mqtt, MQTTTransport, figure, group="tested")


@pytest.fixture
def kept(private_mqtt: Mosquitto, figure: Figures) -> Kept:
    """Return what makes a bench for a server whose session the broker keeps."""

    def make(version: int, group: str = "tested") -> Bench:
        return Bench(
            private_mqtt,
            MQTTTransport,
            figure,
            group=group,
            protocol_version=version,
            client_id="tested-1",
            clean=False,
            subscribe_options={"qos": 1},
        )

    return make


# --- restarts under load ----------------------------------------------------------


@VERSIONS
async def test_restarts_with_qos_0(
    private_mqtt: Mosquitto, version: int, figure: Figures
) -> None:
    """Row 18: little beside the downtime is lost, and it is soon back by itself."""
    options: dict[str, Any] = {"group": "tested", "protocol_version": version}
    bench = Bench(private_mqtt, MQTTTransport, figure, **options)
    outages = scenarios.restarted(bench, ENDS, back=BACK, protocol_version=version)
    async with outages as (load, away):
        await bench.until(lambda: bench.seen[-1] == max(load.accepted))
    scenarios.little_is_lost(bench, load, away, UNSEEN)
    assert len(set(bench.seen)) == len(bench.seen)


@VERSIONS
async def test_restarts_with_qos_1(kept: Kept, version: int) -> None:
    """Row 18: in a session that is kept nothing confirmed is lost over SIGTERM."""
    bench = kept(version, group="")
    outages = scenarios.restarted(bench, STOPS, back=BACK, retries=True, **CONFIRMED)
    async with outages as (load, _):
        await bench.until(lambda: not load.lost(bench.seen))
    assert {*bench.seen} == load.accepted.keys() == load.all


@VERSIONS
async def test_restarts_with_a_group(kept: Kept, version: int) -> None:
    """Row 18: mosquitto does not save who shares, and forgets until they are back."""
    bench = kept(version)
    outages = scenarios.restarted(bench, STOPS, back=BACK, retries=True, **CONFIRMED)
    async with outages as (load, away):
        await bench.until(lambda: max(load.accepted) in bench.seen)
    scenarios.little_is_lost(bench, load, away, BACK)


async def test_broker_that_is_killed(kept: Kept) -> None:
    """Row 18: after SIGKILL what mosquitto had not saved is gone; it is soon back."""
    bench = kept(5)
    kill, options = (Mosquitto.kill,), {"protocol_version": 5, **CONFIRMED}
    outage = scenarios.restarted(bench, kill, back=BACK, retries=True, **options)
    async with outage as (load, away):
        await bench.until(lambda: bench.seen[-1] >= load.number)
    scenarios.little_is_lost(bench, load, away, BACK)


async def test_pending_calls_fail_at_once(bench: Bench) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    await scenarios.pending_calls_fail_at_once(bench, (Mosquitto.kill,))


# --- a broker that is mute --------------------------------------------------------


async def test_frozen_broker(bench: Bench) -> None:
    """Row 20: both ends find out, here with a short keep-alive, and are back after."""
    assert 2 * connection.INTERVAL + connection.PATIENCE + scenarios.LATE <= SEEN
    # They ask every second.
    await scenarios.frozen(bench, 2 * 1 + connection.PATIENCE, keepalive=2)


async def test_leaving_while_the_broker_is_frozen(bench: Bench) -> None:
    """Nobody waits for ever for one who is mute."""
    await scenarios.leaving_while_frozen(bench)


# --- servers that are killed, or stop ---------------------------------------------


@VERSIONS
async def test_killed_servers_lose_nothing(
    kept: Kept, tmp_path: Path, version: int
) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    await scenarios.killed_servers_lose_nothing(
        kept(version), tmp_path / "seen", **CONFIRMED
    )


@pytest.mark.parametrize("is_kept", [False, True])
async def test_server_that_stops_answers_all(
    bench: Bench,
    kept: Kept,
    tmp_path: Path,
    is_kept: bool,  # noqa: FBT001
) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    await scenarios.stopping_server_answers_all(
        kept(5) if is_kept else bench, tmp_path / "seen"
    )


@VERSIONS
async def test_server_that_stops_loses_no_event(
    kept: Kept, tmp_path: Path, version: int
) -> None:
    """Row 24: what comes while a server of a kept session is away waits for it."""
    bench, file = kept(version), tmp_path / "seen"
    async with bench.served(file):
        pass  # from now on the broker keeps what comes
    async with bench.calling(**CONFIRMED) as client:
        async with bench.load(client, retries=True) as load:
            for _ in range(3):
                async with bench.served(file) as process:
                    await bench.noted(file, 50)
                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(process.wait(), SOON) == 0
        async with bench.served(file):
            await bench.until(lambda: not load.lost(numbers(file)))
    assert {*numbers(file)} == load.all


@VERSIONS
async def test_replica_that_stops_loses_no_event(bench: Bench, version: Any) -> None:
    """Row 24: what the broker holds for it comes yet, and is handled."""
    gate, seen = asyncio.Event(), list[int]()

    @event_pattern(bench.pattern, qos=1)
    async def noted(data: int) -> None:
        await gate.wait()
        seen.append(data)

    def replica() -> Server:
        transport = MQTTTransport(**bench.options, protocol_version=version)
        return server_of(transport, noted, concurrency=10)

    leaving = replica()
    async with (
        running(replica()),
        running(leaving) as microservice,
        bench.calling(**CONFIRMED) as client,
    ):
        emits = [client.aemit(bench.pattern, number) for number in range(BURST)]
        await asyncio.gather(*emits)
        draining = asyncio.create_task(microservice.drain())
        await bench.until(lambda: leaving.status.value is Status.DRAINING)
        gate.set()
        assert await draining
        await bench.until(lambda: len(seen) >= BURST)
    assert sorted(seen) == [*range(BURST)]


# --- poison, and what nobody should send ------------------------------------------


@VERSIONS
async def test_poison_is_buried_while_others_flow(
    kept: Kept, private_mqtt: Mosquitto, version: int
) -> None:
    """Row 34: it runs so often and no more, and holds nobody up."""
    bench = kept(version)
    letters: list[Any] = []
    async with Peer(private_mqtt.url, version) as peer:
        await peer.subscribe(f"tested/dead/{bench.pattern}", qos=1)

        async def buried() -> None:
            letters.extend(await peer.bodies(len(scenarios.POISON)))

        await scenarios.poison_is_buried(
            bench, buried, tries=3, client=CONFIRMED, max_deliveries=3
        )
    assert sorted(letter["data"] for letter in letters) == sorted(scenarios.POISON)


async def test_hostile_topics(bench: Bench) -> None:
    """Row 52: what would end a connection is refused, and nobody else is disturbed."""
    async with bench.serving(), bench.calling() as client:
        lost: list[Any] = []
        client.on("disconnect", lambda: lost.append(1))
        async with bench.load(client) as load:
            await bench.sees(50)
            for name in ("#", "a/+", "$SYS/x", "a\0b", "a\r\nb", "", "x" * 65_536):
                with pytest.raises(ValueError, match="cannot be a topic"):
                    await client.aemit(name, 1)
                with pytest.raises(ValueError, match="cannot be a topic"):
                    await client.asend(name, 1)
            await bench.sees(50)
        assert not lost
        await bench.until(lambda: len(bench.seen) == load.number)
    assert sorted(bench.seen) == sorted(load.all)


@VERSIONS
async def test_hostile_messages(
    kept: Kept, private_mqtt: Mosquitto, version: int
) -> None:
    """A server that listens to everything outlives whatever strangers publish."""
    seen: list[Any] = []

    @event_pattern("#", "+/b", "a/+")
    async def everything(data: Any) -> None:
        seen.append(data)

    bench = kept(version)
    options = {**bench.options, "max_frame_size": 4096, "max_deliveries": 1}
    server = server_of(MQTTTransport(**options), everything)
    bodies = [b"", b"{", b"\xff", b"[" * 3000, b'{"id":{}}', b"x" * 10_000]
    async with running(server), Peer(private_mqtt.url) as peer:
        lost: list[Any] = []
        server.on("disconnect", lambda: lost.append(1))
        for topic in ("a/b", "/", "//", "a/reply", "x" * 60_000, "größe 👍", '{"a":1}'):
            for body in bodies:
                for qos in (0, 1):
                    await peer.publish(topic, body, qos=qos)
        await peer.publish("end", b'"the end"')
        await bench.until(lambda: "the end" in seen)
        assert not lost
        assert server.is_ready
