"""Who is measured: for each candidate a server process and a client process."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.interop.npm import NEST, install, script
from tests.interop.process import Child, ChildFailedError, LineChild

from .wires import (
    CONFIRMED,
    JETSTREAM,
    MQTT,
    NATS_CORE,
    RABBITMQ,
    REDIS,
    STREAMS,
    TCP,
    Place,
    Wire,
)
from .workloads import ASYNC, BROKERED, EVENTS, SMALL, SYNC, Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE = 30.0  # seconds for a server to listen


class Process(NamedTuple):
    """How to start one."""

    command: list[str]
    cwd: Path = ROOT
    environment: dict[str, str] | None = None


Start = Callable[[Place], Process]


@dataclass(frozen=True)
class Candidate:
    """A pair of processes by name, and what the pair is measured with."""

    name: str
    server: Start
    client: Start
    workloads: tuple[Workload, ...] = ASYNC


class Pair:
    """The two processes, running. Leaving the block ends them, and their broker."""

    def __init__(self, wire: Wire, candidate: Candidate) -> None:
        with contextlib.ExitStack() as stack:
            place = wire.place(candidate.name)
            if place.broker is not None:
                stack.callback(place.broker.close)
            self.server = start(candidate.server(place), place)
            stack.callback(self.server.close)
            self.client = LineChild(**candidate.client(place)._asdict())
            stack.callback(self.client.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End both."""
        self._stack.close()


def start(process: Process, place: Place) -> Child:
    """Start a server, and wait until it consumes: a broker's says so itself."""
    if place.port is not None:
        return serve(process, place.port)
    return LineChild(**process._asdict())


def serve(process: Process, port: int) -> Child:
    """Start a server, and wait until it listens on ``port``."""
    server = Child(**process._asdict())
    deadline = time.monotonic() + PATIENCE
    while not _listens(port):
        ended = server.process.poll() is not None
        if ended or time.monotonic() > deadline:
            server.close()
            message = f"The server did not listen. {server.last_words()}"
            raise ChildFailedError(message)
        time.sleep(0.02)
    return server


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def nest(name: str) -> Start:
    """Return how to start one of the scripts in ``nest/``."""

    def start(place: Place) -> Process:
        argument = json.dumps(place.nest)
        return Process(script(HERE / "nest" / name, argument), install(NEST))

    return start


def python(module: str, *arguments: str) -> Start:
    """Return how to start one of the modules in ``peers/``."""
    return lambda place: _peer(module, *arguments, place.peer or place.url)


def django(module: str, options: dict[str, Any] | None = None, **given: Any) -> Start:
    """Return how to start one with Django.

    ``options`` are more of the server's, ``given`` is what ``settings.py`` reads.
    """

    def start(place: Place) -> Process:
        server = {**place.django["server"], **(options or {})}
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            "BENCHMARK": json.dumps({**place.django, "server": server, **given}),
        }
        return _peer(module)._replace(environment=environment)

    return start


def _peer(module: str, *arguments: str) -> Process:
    return Process([sys.executable, "-m", f"{__package__}.peers.{module}", *arguments])


def _ours(name: str, handlers: str, workloads: tuple[Workload, ...]) -> Candidate:
    server = django("ours_server", handlers=handlers)
    return Candidate(name, server, django("ours_client"), workloads)


def _brokered(wire: Wire, bare: str) -> tuple[Candidate, ...]:
    """Return who is measured over a broker; ``bare`` names a module of ``peers/``."""
    return (
        Candidate("nest", nest("server.mjs"), nest("client.mjs"), BROKERED),
        Candidate("bare", *_roles(bare), BROKERED),
        _ours("ours-def", "plain", BROKERED),
        _ours("ours-async", "coroutines", BROKERED),
        *_faststream(wire, BROKERED),
    )


def _durable(wire: Wire) -> tuple[Candidate, ...]:
    """Return who is measured with events that are stored."""
    return (
        _ours("ours-def", "plain", EVENTS),
        _ours("ours-async", "coroutines", EVENTS),
        *_faststream(wire, EVENTS),
    )


def _faststream(wire: Wire, workloads: tuple[Workload, ...]) -> Iterable[Candidate]:
    if wire is not MQTT:  # of which it knows nothing
        yield Candidate("faststream", *_roles("faststream", wire.name), workloads)


def _roles(module: str, *arguments: str) -> tuple[Start, Start]:
    """Return how to start the two ends of a module in ``peers/`` that is both."""
    return python(module, "server", *arguments), python(module, "client", *arguments)


# 100 requests of 100 KB at once stop Nest for ever: each end has more to write than the
# sockets hold, and neither reads while it waits for room. After 30 s it hangs up.
FOR_NEST = tuple(each for each in ASYNC if each.name != "100KB-100")

BARE = python("bare_server")

CANDIDATES: dict[Wire, tuple[Candidate, ...]] = {
    TCP: (
        Candidate("nest", nest("server.mjs"), nest("client.mjs"), FOR_NEST),
        Candidate("bare", BARE, python("bare_client")),
        _ours("ours-def", "plain", ASYNC),
        _ours("ours-async", "coroutines", ASYNC),
        _ours("ours-async-timeout", "waiting", SMALL),
        # One server for both, so that nothing differs but the client.
        Candidate("bare-hop", BARE, python("bare_hop"), SYNC),
        Candidate("ours-sync-client", BARE, django("ours_sync_client"), SYNC),
    ),
    REDIS: _brokered(REDIS, "bare_redis"),
    STREAMS: _durable(STREAMS),
    NATS_CORE: _brokered(NATS_CORE, "bare_nats"),
    JETSTREAM: _durable(JETSTREAM),
    MQTT: _brokered(MQTT, "bare_mqtt"),
    RABBITMQ: _brokered(RABBITMQ, "bare_rabbitmq"),
    CONFIRMED: _brokered(CONFIRMED, "bare_rabbitmq"),
}
