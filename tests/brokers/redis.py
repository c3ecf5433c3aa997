"""Redis for the tests: ``TEST_REDIS_URL``, else a private server."""

import socket
from typing import Any

import redis

from .broker import BrokerProcess
from .programs import Program
from .server import Server

PROGRAM = Program(
    "redis-server",
    package="redis-server",
    image="redis:7",
    variable="TEST_REDIS_URL",
)


class RedisProcess(BrokerProcess):
    """A private server that keeps its data, as far as the last second for sure."""

    name = "redis"
    program = PROGRAM
    scheme, secure_scheme = "redis", "rediss"

    @property
    def credentials(self) -> str:
        """The password of Redis' default user."""
        return f":{self.password}@" if self.password else ""

    def command(self) -> list[str]:
        """Write each second to the append-only file, and take no snapshots."""
        options = {
            "bind": self.address,
            "port": "0" if self.tls else str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "protected-mode": "no",  # it is about addresses that are not loopback
            **self._security(),
        }
        words = [
            word for name, value in options.items() for word in (f"--{name}", value)
        ]
        return [str(self.binary), *words]

    def _security(self) -> dict[str, str]:
        options = {"requirepass": self.password} if self.password else {}
        if self.tls:
            options |= {
                "tls-port": str(self.port),
                "tls-ca-cert-file": self.keep("ca"),
                "tls-cert-file": self.keep("server_cert"),
                "tls-key-file": self.keep("server_key"),
                "tls-auth-clients": "yes" if self.mutual else "no",
            }
        return options

    def greet(self, connection: socket.socket) -> bool:
        """Whether it has loaded its data."""
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))


class Redis(Server[RedisProcess]):
    """A Redis server."""

    variable = PROGRAM.variable
    kind = RedisProcess

    def execute(self, *words: Any) -> Any:
        """Run one command on a connection of its own; texts of the answer are str."""
        options = {"decode_responses": True, **self._tls()}
        with redis.Redis.from_url(self.url, **options) as client:
            return client.execute_command(*words)

    def _tls(self) -> dict[str, str]:
        tls = self.process.tls if self.process else None
        names = {"ca": "ca_certs", "client_cert": "certfile", "client_key": "keyfile"}
        return {f"ssl_{name}": tls[key] for key, name in names.items()} if tls else {}
