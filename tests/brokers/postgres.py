"""PostgreSQL for the tests: ``TEST_POSTGRES_URL``, else a private server."""

import signal
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from .process import ServerProcess
from .programs import Program
from .server import Server

PROGRAM = Program(
    "postgres",
    package="postgresql",
    variable="TEST_POSTGRES_URL",
    folders=("/usr/lib/postgresql/*/bin",),
)


class PostgresProcess(ServerProcess):
    """A private server; its superuser is ``postgres``, without a password."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": connections are cut, data is kept
    death_signal = stop_signal  # only an orderly end gives back its shared memory
    users = ("postgres", "nobody")

    def __init__(self) -> None:
        self._binaries = PROGRAM.get().parent
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


class Postgres(Server[PostgresProcess]):
    """A PostgreSQL server."""

    variable = PROGRAM.variable
    kind = PostgresProcess

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
