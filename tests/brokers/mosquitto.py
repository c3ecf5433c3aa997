"""Mosquitto (MQTT 3.1.1 and 5) for the tests: ``TEST_MQTT_URL``, else a private one."""

import base64
import hashlib
import os
import socket

from .broker import USER, BrokerProcess
from .programs import Program
from .server import Server

PROGRAM = Program(
    "mosquitto",
    package="mosquitto",
    image="eclipse-mosquitto:2",
    variable="TEST_MQTT_URL",
    folders=("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"),
)
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"  # 3.1.1, clean, 60 s, no id
CONNACK = 0x20


class MosquittoProcess(BrokerProcess):
    """A private server; it saves sessions and retained messages each second."""

    name = "mosquitto"
    program = PROGRAM
    scheme, secure_scheme = "mqtt", "mqtts"

    def prepare(self) -> None:
        """Write the configuration."""
        lines = [
            f"listener {self.port} {self.address}",
            "user root",  # does not become another one, who may not read the folder
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_interval 1",
            "max_queued_messages 100000",
            "set_tcp_nodelay true",  # or Nest's client waits 40 ms for each message
            *self._security(),
        ]
        self.write("mosquitto.conf", "\n".join(lines))

    def _security(self) -> list[str]:
        lines = [f"allow_anonymous {str(not self.password).lower()}"]
        if self.password:
            path = self.write("passwords", f"{USER}:{_hashed(self.password)}\n")
            lines += [f"password_file {path}"]
        if self.tls:
            lines += [
                f"cafile {self.keep('ca')}",
                f"certfile {self.keep('server_cert')}",
                f"keyfile {self.keep('server_key')}",
                f"require_certificate {str(self.mutual).lower()}",
            ]
        return lines

    def command(self) -> list[str]:
        """Read the configuration."""
        return [str(self.binary), "-c", str(self.folder / "mosquitto.conf")]

    def greet(self, connection: socket.socket) -> bool:
        """Whether it answers a client, be it with a refusal."""
        connection.sendall(CONNECT)
        return connection.recv(4)[:1] == bytes([CONNACK])


class Mosquitto(Server[MosquittoProcess]):
    """An MQTT server."""

    variable = PROGRAM.variable
    kind = MosquittoProcess


def _hashed(password: str) -> str:
    """Hash a password as ``mosquitto_passwd`` does."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"$7${rounds}${'$'.join(parts)}"
