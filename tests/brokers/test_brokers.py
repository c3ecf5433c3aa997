"""Message brokers: they answer, come back with their data, and can be made to fail."""

import os
import socket
from collections.abc import Callable
from typing import Any

import nats
import pytest
from asgiref.sync import async_to_sync
from pamqp import commands

from . import broker
from .amqp import Talk
from .docker import find_docker
from .mosquitto import CONNECT, Mosquitto
from .nats import NATS
from .process import ServerUnavailableError
from .programs import Program
from .rabbitmq import RabbitMQ
from .redis import Redis
from .server import Server

KINDS = [Redis, NATS, Mosquitto, RabbitMQ]
FIXTURES = ["redis_server", "nats_server", "mqtt_server", "rabbitmq_server"]
PRIVATE = ["private_redis", "private_nats", "private_mqtt", "private_rabbitmq"]

PATIENCE = 30.0
OWNER = """
import json, signal
from tests.brokers.rabbitmq import RabbitMQ
node = RabbitMQ.private().ours
both = [node, node.mapper]
print(json.dumps([[str(each.folder) for each in both], [each.port for each in both]]))
print(flush=True)
signal.pause()
"""

Start = Callable[..., Any]


@pytest.fixture(params=PRIVATE)
def server(request: pytest.FixtureRequest) -> Server[Any]:
    """Give each of the private servers."""
    found: Server[Any] = request.getfixturevalue(request.param)
    return found


# --- what each of them keeps ------------------------------------------------------


def keep_in_redis(server: Redis) -> None:
    """Write a key."""
    assert server.execute("SET", "kept", "42")


def kept_in_redis(server: Redis) -> bool:
    """Whether the key is there."""
    return bool(server.execute("GET", "kept") == "42")


@async_to_sync
async def keep_in_nats(server: NATS) -> None:
    """Write a message into a stream."""
    async with await nats.connect(server.url) as client:
        stream = client.jetstream()
        await stream.add_stream(name="kept", subjects=["kept"])
        await stream.publish("kept", b"42")


@async_to_sync
async def kept_in_nats(server: NATS) -> bool:
    """Whether the message is there."""
    async with await nats.connect(server.url) as client:
        return (await client.jetstream().get_msg("kept", 1)).data == b"42"


def keep_in_mosquitto(server: Mosquitto) -> None:
    """Publish a retained message, at QoS 1."""
    with server.ours.dial() as peer:
        peer.sendall(CONNECT + b"\x33\x0a\x00\x04kept\x00\x0142")
        assert read(peer, 8).endswith(b"\x40\x02\x00\x01")  # PUBACK


def kept_in_mosquitto(server: Mosquitto) -> bool:
    """Whether it is sent to who subscribes."""
    with server.ours.dial() as peer:
        peer.sendall(CONNECT + b"\x82\x09\x00\x01\x00\x04kept\x00")
        return read(peer, 19).endswith(b"kept42")


def keep_in_rabbitmq(server: RabbitMQ) -> None:
    """Declare a durable queue."""
    with server.ours.dial() as peer, Talk(peer, "guest", "guest") as talk:
        talk.ask(commands.Channel.Open(), 1)
        assert talk.ask(commands.Queue.Declare(queue="kept", durable=True), 1)


def kept_in_rabbitmq(server: RabbitMQ) -> bool:
    """Whether the queue is there."""
    return "kept" in server.ctl("list_queues", "name").split()


KEEP: dict[type[Server[Any]], tuple[Callable[..., None], Callable[..., bool]]] = {
    Redis: (keep_in_redis, kept_in_redis),
    NATS: (keep_in_nats, kept_in_nats),
    Mosquitto: (keep_in_mosquitto, kept_in_mosquitto),
    RabbitMQ: (keep_in_rabbitmq, kept_in_rabbitmq),
}


def read(peer: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    with peer.makefile("rb") as stream:
        return stream.read(size)


def test_restart_keeps_what_is_durable(server: Server[Any]) -> None:
    """A server that is restarted has the same URL and the same data."""
    keep, kept = KEEP[type(server)]
    keep(server)
    url = server.url
    server.restart()
    assert server.url == url
    assert kept(server)


# --- faults -----------------------------------------------------------------------


def test_killed_server_starts_again(server: Server[Any]) -> None:
    """After SIGKILL nobody answers, and a start brings it back."""
    server.kill()
    assert not server.ours.is_ready()
    server.start()
    assert server.ours.is_ready()


def test_stopped_server_starts_again(server: Server[Any]) -> None:
    """After an orderly end nobody answers, and a start brings it back."""
    server.stop()
    assert not server.ours.is_ready()
    server.start()
    assert server.ours.is_ready()


def test_frozen_server_is_mute(server: Server[Any]) -> None:
    """A frozen server answers nobody until it is thawed."""
    server.freeze()
    assert not server.ours.is_ready()
    server.thaw()
    assert server.ours.is_ready()


def test_recovered_server_runs(server: Server[Any]) -> None:
    """Whatever a test did, the next one finds it running."""
    server.freeze()
    server.recover()
    assert server.ours.is_ready()
    server.kill()
    server.recover()
    assert server.ours.is_ready()


# --- whose server -----------------------------------------------------------------


@pytest.mark.parametrize("name", FIXTURES)
def test_session_has_a_server(name: str, request: pytest.FixtureRequest) -> None:
    """A server that runs comes with its URL."""
    server: Server[Any] = request.getfixturevalue(name)
    assert "://" in server.url
    assert server.process is None or server.process.is_ready()


@pytest.mark.parametrize("kind", KINDS)
def test_server_of_the_environment(
    kind: type[Server[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that the environment names is used, and never stopped."""
    monkeypatch.setenv(kind.variable, "wire://broker.example:1234")
    server = kind.open()
    assert server.url == "wire://broker.example:1234"
    with pytest.raises(
        ServerUnavailableError, match=f"{kind.variable} .* may not stop"
    ):
        server.stop()
    server.close()


@pytest.mark.parametrize("kind", KINDS)
def test_missing_server_is_one_line(
    kind: type[Server[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a server is not and cannot be installed, one line says what to do."""
    monkeypatch.delenv(kind.variable, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(Program, "_places", lambda program: iter(()))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(broker, "find_docker", lambda image: None)
    with pytest.raises(ServerUnavailableError, match=f"^No .* set {kind.variable}.*$"):
        kind.open()


def test_no_docker_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Docker is not installed there is no container."""
    monkeypatch.setenv("PATH", "")
    assert find_docker("redis:7") is None


def test_nats_shows_what_happens(private_nats: NATS) -> None:
    """Its monitoring is a part of each server of ours."""
    assert private_nats.monitor("varz")["jetstream"]
