"""Brokers with a password and TLS: they are asked for, and what the tests give fits."""

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import nats
import pytest
from asgiref.sync import async_to_sync

from .amqp import Talk
from .mosquitto import CONNECT, Mosquitto
from .nats import NATS
from .rabbitmq import RabbitMQ
from .redis import Redis
from .server import Server

Start = Callable[..., Any]


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
            assert peer.recv(4) == answer


def test_mosquitto_speaks_tls(
    start_server: Start, certificates: dict[str, str]
) -> None:
    """With mutual TLS a client shows its certificate, or is cut off."""
    server: Mosquitto = start_server(Mosquitto, tls=certificates, mutual=True)
    assert server.url.startswith("mqtts://")
    assert_cut_off(server, certificates, CONNECT)


def test_rabbitmq_asks_for_both(
    start_server: Start, certificates: dict[str, str]
) -> None:
    """It wants the certificate and the password that its URL has."""
    server: RabbitMQ = start_server(
        RabbitMQ, tls=certificates, mutual=True, password="secret"
    )
    assert server.url.startswith("amqps://tests:secret@")
    assert_cut_off(server, certificates, b"AMQP\0\0\x09\x01")
    with server.ours.dial() as peer:
        peer.settimeout(10)  # it thinks for a second before it refuses
        with pytest.raises(OSError, match="hung up"):
            Talk(peer, "tests", "guess")
