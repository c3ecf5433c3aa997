"""Message brokers: they answer, come back with their data, and can be made to fail."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
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


# --- options ----------------------------------------------------------------------


def test_redis_asks_for_its_password(start_server: Start) -> None:
    """The URL has it; without it there is no answer."""
    server: Redis = start_server(Redis, password="secret")
    assert server.execute("PING")
    with server.ours.dial() as peer:
        peer.sendall(b"PING\r\n")
        assert peer.recv(64).startswith(b"-NOAUTH")


def test_redis_speaks_tls(start_server: Start, certificates: dict[str, str]) -> None:
    """With mutual TLS a client shows its certificate, or is cut off."""
    server: Redis = start_server(Redis, tls=certificates, mutual=True)
    assert server.url.startswith("rediss://")
    assert server.execute("PING")
    assert_cut_off(server, certificates, b"PING\r\n")


def test_nats_asks_for_its_password(start_server: Start) -> None:
    """The URL has it; without it there is no connection."""
    server: NATS = start_server(NATS, password="secret")
    connect_to_nats(server)
    with server.ours.dial() as peer:
        assert b'"auth_required":true' in peer.recv(4096)
        peer.sendall(b"CONNECT {}\r\nPING\r\n")
        assert b"Authorization Violation" in peer.recv(4096)


@async_to_sync
async def connect_to_nats(server: NATS) -> None:
    """Go there and back by its URL."""
    async with await nats.connect(server.url) as client:
        await client.flush()


def test_nats_speaks_tls(start_server: Start, certificates: dict[str, str]) -> None:
    """After its first words, and with mutual TLS a client shows its certificate."""
    server: NATS = start_server(NATS, tls=certificates, mutual=True)
    assert server.url.startswith("tls://")
    context = ssl.create_default_context(cafile=certificates["ca"])
    context.load_cert_chain(certificates["client_cert"], certificates["client_key"])
    with server.ours.dial() as plain:
        assert b'"tls_required":true' in plain.recv(4096)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
            peer.sendall(b"CONNECT {}\r\nPING\r\n")
            assert b"PONG" in peer.recv(4096)


def test_nats_shows_its_connections(nats_server: NATS) -> None:
    """The monitoring is a part of each server."""
    assert nats_server.monitor("varz")["jetstream"]


def test_mosquitto_asks_for_its_password(start_server: Start) -> None:
    """The URL has it; without it the server refuses."""
    server: Mosquitto = start_server(Mosquitto, password="secret")
    assert server.url.startswith("mqtt://tests:secret@")
    refused, accepted = b"\x20\x02\x00\x05", b"\x20\x02\x00\x00"
    name = b"\x10\x1b\x00\x04MQTT\x04\xc2\x00\x3c\x00\x00\x00\x05tests\x00\x06"
    for words, answer in [
        (CONNECT, refused),
        (name + b"secret", accepted),
        (name + b"guess!", refused),
    ]:
        with server.ours.dial() as peer:
            peer.sendall(words)
            assert read(peer, 4) == answer


def test_mosquitto_speaks_tls(
    start_server: Start, certificates: dict[str, str]
) -> None:
    """With mutual TLS a client shows its certificate, or is cut off."""
    server: Mosquitto = start_server(Mosquitto, tls=certificates, mutual=True)
    assert server.url.startswith("mqtts://")
    assert_cut_off(server, certificates, CONNECT)


def assert_cut_off(
    server: Server[Any], certificates: Mapping[str, str], words: bytes
) -> None:
    """Say something without a certificate; in TLS 1.3 the answer refuses it."""
    context = ssl.create_default_context(cafile=certificates["ca"])
    address = ("127.0.0.1", server.ours.port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
        pytest.raises(OSError, match=r"required|reset|EOF"),
    ):
        say(peer, words)


def say(peer: socket.socket, words: bytes) -> bytes:
    """Send words, and return the first byte of the answer."""
    peer.sendall(words)
    return peer.recv(1)


# --- RabbitMQ, which has more processes than one ----------------------------------


def test_rabbitmq_with_all_options(
    start_server: Start, certificates: dict[str, str]
) -> None:
    """It asks for certificate and password, and its end leaves nothing behind."""
    server = RabbitMQ.private(tls=certificates, mutual=True, password="secret")
    process = server.ours
    assert server.url == f"amqps://tests:secret@127.0.0.1:{process.port}"
    with process.dial() as peer:
        peer.settimeout(10)  # it thinks for a second before it refuses
        with pytest.raises(OSError, match="hung up"):
            Talk(peer, "tests", "guess")
    assert_cut_off(server, certificates, b"AMQP\0\0\x09\x01")
    assert process.mapper is not None
    folders = [process.folder, process.mapper.folder]
    server.close()
    assert not process.mapper.is_ready()
    assert not any(folder.exists() for folder in folders)


def test_rabbitmq_ends_with_its_owner() -> None:
    """When the tests are killed the node ends, and its port mapper."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folders, ports = json.loads(owner.stdout.readline())
        owner.kill()
    deadline = time.monotonic() + PATIENCE
    while any(listens(port) for port in ports):
        assert time.monotonic() < deadline
    for folder in folders:
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    """Whether somebody accepts connections."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def test_rabbitmq_does_what_it_is_told(rabbitmq_server: RabbitMQ) -> None:
    """Its own tool works on this node."""
    assert rabbitmq_server.ctl("eval", "1 + 1.") == "2\n"


def test_rabbitmq_has_an_alarm(private_rabbitmq: RabbitMQ) -> None:
    """Inside the block it is short of memory."""
    ask = ("eval", "rabbit_alarm:get_alarms().")
    with private_rabbitmq.memory_alarm():
        assert "memory" in private_rabbitmq.ctl(*ask)
    assert private_rabbitmq.ctl(*ask) == "[]\n"


def test_everything_is_on_loopback(private_rabbitmq: RabbitMQ) -> None:
    """No port of the node, nor of its port mapper, is open to others."""
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    assert private_rabbitmq.ours.mapper is not None
    ports = [private_rabbitmq.ours.port, private_rabbitmq.ours.mapper.port]
    ports.append(int(private_rabbitmq.ours.environment["RABBITMQ_DIST_PORT"]))
    for port in ports:
        assert f"0100007F:{port:04X}" in listening
        assert f" 00000000:{port:04X}" not in listening
        assert f"{'0' * 32}:{port:04X}" not in listening
