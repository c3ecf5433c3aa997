"""Who is measured: for each candidate a server process and a client process."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.brokers.process import free_port
from tests.interop.npm import NEST, install, script
from tests.interop.process import Child, ChildFailedError, LineChild

from .workloads import ASYNC, SMALL, SYNC, Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE = 30.0  # seconds for a server to listen


class Process(NamedTuple):
    """How to start one."""

    command: list[str]
    cwd: Path = ROOT
    environment: dict[str, str] | None = None


Start = Callable[[int], Process]  # with the port of the server


@dataclass(frozen=True)
class Candidate:
    """A pair of processes by name, and what the pair is measured with."""

    name: str
    server: Start
    client: Start
    workloads: tuple[Workload, ...] = ASYNC


class Pair:
    """The two processes, running. Leaving the block ends them."""

    def __init__(self, candidate: Candidate) -> None:
        with contextlib.ExitStack() as stack:
            port = free_port()
            self.server = serve(candidate.server(port), port)
            stack.callback(self.server.close)
            self.client = LineChild(**candidate.client(port)._asdict())
            stack.callback(self.client.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End both."""
        self._stack.close()


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

    def start(port: int) -> Process:
        return Process(script(HERE / "nest" / name, str(port)), install(NEST))

    return start


def python(module: str) -> Start:
    """Return how to start one of the modules in ``peers/``."""
    return lambda port: _peer(module, str(port))


def django(module: str, **given: Any) -> Start:
    """Return how to start one with Django; ``given`` is what ``settings.py`` reads."""

    def start(port: int) -> Process:
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            "BENCHMARK": json.dumps({"port": port, **given}),
        }
        return _peer(module)._replace(environment=environment)

    return start


def _peer(module: str, *arguments: str) -> Process:
    return Process([sys.executable, "-m", f"{__package__}.peers.{module}", *arguments])


def _ours(name: str, handlers: str, workloads: tuple[Workload, ...]) -> Candidate:
    server = django("ours_server", handlers=handlers)
    return Candidate(name, server, django("ours_client"), workloads)


# 100 requests of 100 KB at once stop Nest for ever: each end has more to write than the
# sockets hold, and neither reads while it waits for room. After 30 s it hangs up.
FOR_NEST = tuple(each for each in ASYNC if each.name != "100KB-100")

BARE = python("bare_server")

CANDIDATES = (
    Candidate("nest", nest("server.mjs"), nest("client.mjs"), FOR_NEST),
    Candidate("bare", BARE, python("bare_client")),
    _ours("ours-def", "plain", ASYNC),
    _ours("ours-async", "coroutines", ASYNC),
    _ours("ours-async-timeout", "waiting", SMALL),
    # One server for both, so that nothing differs but the client.
    Candidate("bare-hop", BARE, python("bare_hop"), SYNC),
    Candidate("ours-sync-client", BARE, django("ours_sync_client"), SYNC),
)
