"""Consumer groups by ``NAME``: three services of two processes each, on real brokers.

Of an event that three services listen to each service gets one copy, and its replicas
share them, on every wire that can do so.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from django_microservices.concurrency.portal import portal
from django_microservices.conf import create_client
from django_microservices.endpoints.client import Client
from tests.transports import replica

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; some ten times what it takes
SERVICES = ("billing", "mail", "stock")
EVENTS = 60


class Wire(NamedTuple):
    """A wire, the fixture of its broker, and the options that it needs beside."""

    transport: str
    broker: str
    options: dict[str, Any]

    def entry(self, url: str) -> dict[str, Any]:
        """Return an entry of settings."""
        path = f"django_microservices.transports.{self.transport}"
        return {"TRANSPORT": path, "OPTIONS": {"url": url, **self.options}}


SHARING = {
    "nats": Wire("NATSTransport", "nats_server", {}),
    "jetstream": Wire("JetStreamTransport", "nats_server", {}),
    "rabbitmq": Wire("RabbitMQTransport", "rabbitmq_server", {}),
    "redis streams": Wire("RedisStreamsTransport", "redis_server", {}),
    "mqtt 3.1.1": Wire("MQTTTransport", "mqtt_server", {}),
    "mqtt 5": Wire("MQTTTransport", "mqtt_server", {"protocol_version": 5}),
}
COPYING = {
    "redis": Wire("RedisTransport", "redis_server", {}),
    "nats without a group": Wire("NATSTransport", "nats_server", {"group": ""}),
    "mqtt without a group": Wire("MQTTTransport", "mqtt_server", {"group": ""}),
}


class Replica:
    """A process of a service, and what it has heard."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.heard: list[int] = []
        self.ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", replica.__name__, json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == replica.READY:
                self.ready.set()
            else:
                self.heard.append(int(line))
        self.ready.set()  # or it never will be

    def end(self) -> int:
        """Have it drain and end; return its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        return code


Services = dict[str, list[Replica]]


@contextlib.contextmanager
def running(wire: Wire, url: str, *names: str) -> Iterator[Services]:
    """Run two replicas of each service inside the block."""
    server = {**wire.entry(url), "HANDLERS": [replica.__name__]}
    services: Services = {
        name: [
            Replica({"NAME": name, "SERVERS": {"default": server}}) for _ in range(2)
        ]
        for name in names
    }
    try:
        for one in of(services):
            assert one.ready.wait(PATIENCE)
            assert one.process.poll() is None, "A replica did not start."
        yield services
    finally:
        codes = [one.end() for one in of(services)]
    assert codes == [0] * len(codes)


def of(services: Services) -> list[Replica]:
    """Return all replicas."""
    return [one for replicas in services.values() for one in replicas]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def emit() -> Iterator[Callable[..., None]]:
    """Return a function that emits on a wire, as a fourth service does."""
    clients: list[Client] = []

    def emit(wire: Wire, url: str, number: int) -> None:
        if not clients:
            entry = wire.entry(url)
            clients.append(create_client({**entry, "TIMEOUT": PATIENCE}))
        clients[0].emit(replica.PATTERN, number)

    yield emit
    for client in clients:
        client.close()
    portal.stop()


@pytest.mark.parametrize("wire", SHARING.values(), ids=SHARING)
def test_each_service_hears_once(
    wire: Wire, request: pytest.FixtureRequest, emit: Callable[..., None]
) -> None:
    """Each service hears each event once, and both of its replicas take part."""
    url = request.getfixturevalue(wire.broker).url
    sent = 0
    with running(wire, url, *SERVICES) as services:
        while sent < EVENTS or not all(one.heard for one in of(services)):
            emit(wire, url, sent)
            sent += 1
            assert sent < 100 * EVENTS, "A replica was never given anything."
        until(lambda: sum(len(one.heard) for one in of(services)) >= 3 * sent)
    for replicas in services.values():
        heard = [number for one in replicas for number in one.heard]
        assert sorted(heard) == list(range(sent))


@pytest.mark.parametrize("wire", COPYING.values(), ids=COPYING)
def test_each_replica_hears_everything(
    wire: Wire, request: pytest.FixtureRequest, emit: Callable[..., None]
) -> None:
    """Where the wire cannot share, each replica gets a copy of each event."""
    url = request.getfixturevalue(wire.broker).url
    with running(wire, url, "billing", "mail") as services:
        for number in range(EVENTS):
            emit(wire, url, number)
        until(lambda: all(len(one.heard) >= EVENTS for one in of(services)))
    assert all(sorted(one.heard) == list(range(EVENTS)) for one in of(services))
