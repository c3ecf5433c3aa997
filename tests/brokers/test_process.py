"""Private servers: they start, restart, and never outlive the tests."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.fixtures import give_up
from tests.brokers.ports import broker_port
from tests.brokers.postgres import Postgres
from tests.brokers.process import (
    ServerProcess,
    ServerUnavailableError,
    is_listening,
)

PATIENCE = 30.0

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""

OWNER = """
import signal, sys
from tests.brokers.test_process import Listener
server = Listener()
server.start()
print(server.port, server.folder, flush=True)
signal.pause()
"""


class Listener(ServerProcess):
    """The smallest server."""

    name = "listener"

    def command(self) -> list[str]:
        """Accept connections and close them."""
        return [sys.executable, "-c", LISTEN, str(self.port)]


class Broken(Listener):
    """A server that refuses to start."""

    def command(self) -> list[str]:
        """Complain and end."""
        return [sys.executable, "-c", "raise SystemExit('bad configuration')"]


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that runs."""
    server = Listener()
    server.start()
    yield server
    server.close()


def process_of(server: Listener) -> subprocess.Popen[bytes]:
    """Return the process of a server that runs."""
    assert server.process is not None
    return server.process


def test_start_waits_until_it_answers(listener: Listener) -> None:
    """After start() the server answers, on a port of the brokers' range."""
    assert is_listening(listener.port)
    assert listener.port in broker_port.ports


def test_close_leaves_nothing(listener: Listener) -> None:
    """After close() neither the process nor its folder is there."""
    listener.close()
    assert not is_listening(listener.port)
    assert not listener.folder.exists()


def test_server_that_does_not_start() -> None:
    """A server that ends at once is an error with its last words."""
    server = Broken()
    with pytest.raises(ServerUnavailableError, match="bad configuration"):
        server.start()
    server.close()


def test_restart_is_on_the_same_port(listener: Listener) -> None:
    """Whoever knows the server finds it again."""
    port = listener.port
    listener.restart()
    assert is_listening(port)


def test_killed_server_starts_again(listener: Listener) -> None:
    """After kill() it does not run, and nothing of it stands in its way."""
    listener.kill()
    assert not is_listening(listener.port)
    listener.start()
    assert is_listening(listener.port)


def test_frozen_server_does_nothing(listener: Listener) -> None:
    """The kernel still takes connections for it, and it closes them once thawed."""
    listener.freeze()
    with socket.create_connection(("127.0.0.1", listener.port), timeout=0.1) as peer:
        with pytest.raises(TimeoutError):
            peer.recv(1)
        listener.thaw()
        peer.settimeout(PATIENCE)
        assert peer.recv(1) == b""


def test_frozen_server_can_be_stopped(listener: Listener) -> None:
    """It ends in an orderly way, as soon as another one."""
    listener.freeze()
    start = time.monotonic()
    listener.stop()
    assert time.monotonic() - start < listener.patience


def test_server_outlives_the_thread_that_started_it(listener: Listener) -> None:
    """A test may restart it beside its loop."""
    thread = threading.Thread(target=listener.restart)
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        process_of(listener).wait(0.2)
    assert is_listening(listener.port)


def test_missing_program_is_raised_to_who_starts(listener: Listener) -> None:
    """A command that cannot be run is an error at once."""
    listener.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener, "launch", lambda: ["/no/such/program"])
        with pytest.raises(FileNotFoundError):
            listener.start()


def test_tool_has_the_servers_environment(listener: Listener) -> None:
    """What the server is told, its tools are told."""
    listener.environment = {"NODE": "rabbit@here"}
    code = "import os; print(os.environ['NODE'])"
    assert listener.run([sys.executable, "-c", code]) == "rabbit@here\n"


def test_failed_tool_says_why(listener: Listener) -> None:
    """A tool that fails is an error with what it said."""
    with pytest.raises(ServerUnavailableError, match="no such node"):
        listener.run([sys.executable, "-c", "raise SystemExit('no such node')"])


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_server_ends_with_its_owner(kill: signal.Signals) -> None:
    """However the tests are ended, their server ends too."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        port, folder = owner.stdout.readline().split()
        assert is_listening(int(port))
        owner.send_signal(kill)
    deadline = time.monotonic() + PATIENCE
    while is_listening(int(port)):
        assert time.monotonic() < deadline
    left = Path(folder)
    assert left.exists() == (kill is signal.SIGKILL)
    if left.exists():
        (left / "log").unlink()
        left.rmdir()


def test_restart_keeps_the_data(private_postgres: Postgres) -> None:
    """A PostgreSQL that is restarted has the same URL and the same rows."""
    private_postgres.execute("CREATE TABLE kept AS SELECT 42 AS n")
    private_postgres.restart()
    assert private_postgres.execute("SELECT n FROM kept WHERE n > %s", 1) == [(42,)]
    private_postgres.execute("DROP TABLE kept")


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that TEST_POSTGRES_URL names is used, and never stopped."""
    url = "postgresql://me:p%40ss@db.example:5433/shop"
    monkeypatch.setenv("TEST_POSTGRES_URL", url)
    server = Postgres.open()
    assert server.settings["PASSWORD"] == "p@ss"
    assert server.settings["PORT"] == "5433"
    with pytest.raises(ServerUnavailableError, match="may not stop"):
        server.stop()
    server.close()


def test_missing_server_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a developer's machine a missing server skips its tests."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        give_up("no server")


def test_missing_server_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under CI a missing server fails its tests."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no server"):
        give_up("no server")
