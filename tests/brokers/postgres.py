"""PostgreSQL for the tests: ``TEST_POSTGRES_URL``, else a private server."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from .process import ServerProcess, ServerUnavailableError


class Postgres:
    """A server by its URL; one with a ``process`` is ours to stop and start."""

    def __init__(self, url: str, process: ServerProcess | None = None) -> None:
        self.url = url
        self.process = process

    @property
    def settings(self) -> dict[str, Any]:
        """An entry for Django's DATABASES."""
        parts = urlsplit(self.url)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.removeprefix("/") or "postgres",
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
        }

    def execute(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return the rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start, and wait until the server answers."""
        self._ours().start()

    def stop(self) -> None:
        """Stop; the server cuts its connections and keeps its data."""
        self._ours().stop()

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self._ours().restart()

    def close(self) -> None:
        """End a server of ours for good; leave another one as it is."""
        if self.process is not None:
            self.process.close()

    def _ours(self) -> ServerProcess:
        if self.process is None:
            message = "TEST_POSTGRES_URL names a server that the tests may not stop."
            raise ServerUnavailableError(message)
        return self.process


class PostgresProcess(ServerProcess):
    """A private server; its superuser is ``postgres``, without a password."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": connections are cut, data is kept
    users = ("postgres", "nobody")

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        super().__init__()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def prepare(self) -> None:
        """Make the database cluster."""
        initdb = str(self._binaries / "initdb")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8"]
        self.run([initdb, "-D", self._data, *options, "--no-locale", "--no-sync"])

    def command(self) -> list[str]:
        """Listen on loopback only, and do not wait for the disk."""
        server = [str(self._binaries / "postgres"), "-D", self._data]
        settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ]
        return [*server, "-p", str(self.port), *(f"-c{item}" for item in settings)]

    def is_ready(self) -> bool:
        """Whether it lets us in: while it starts up it listens, and refuses."""
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def open_postgres() -> Postgres:
    """Return a running server, or raise ServerUnavailableError with the reason."""
    url = os.environ.get("TEST_POSTGRES_URL")
    if url:
        return Postgres(url)
    process = PostgresProcess(_find() or _install())
    process.start()
    return Postgres(process.url, process)


def _find() -> Path | None:
    return next((path for path in _places() if (path / "initdb").exists()), None)


def _places() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _install() -> Path:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        message = (
            "No PostgreSQL: set TEST_POSTGRES_URL, or put its server binaries on PATH."
        )
        raise ServerUnavailableError(message)
    # At run level 1 Debian's scripts do not start the server that they configure.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = [apt, "install", "-y", "--no-install-recommends", "postgresql"]
    subprocess.run(command, env=environment, capture_output=True, check=False)
    binaries = _find()
    if binaries is None:
        message = "No PostgreSQL, and `apt-get install postgresql` did not bring it."
        raise ServerUnavailableError(message)
    return binaries
