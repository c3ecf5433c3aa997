"""What the processes of all message brokers have: a password and TLS by option."""

import contextlib
import shutil
import signal
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .docker import Container, find_docker
from .process import ServerProcess, ServerUnavailableError
from .programs import Program

USER = "tests"
"""The user of a server with a password."""


class BrokerProcess(ServerProcess):
    """A broker on loopback, open to all; with ``password`` to :data:`USER` alone.

    ``tls`` are paths as the fixture ``certificates`` gives them; the port then speaks
    TLS, and with ``mutual`` the server wants a certificate of the client. Where its
    program cannot be had it runs in a container, if there is Docker.
    """

    program: ClassVar[Program]
    scheme: ClassVar[str]
    secure_scheme: ClassVar[str]

    def __init__(
        self,
        *,
        password: str = "",
        tls: Mapping[str, str] | None = None,
        mutual: bool = False,
    ) -> None:
        self.docker: str | None = None
        try:
            self.binary = self.program.get()
        except ServerUnavailableError:
            self.docker = find_docker(self.program.image)
            if self.docker is None:
                raise
            self.binary = Path(self.program.name)
            self.death_signal = signal.SIGTERM  # which Docker's client passes on
        self.password = password
        self.tls = tls
        self.mutual = mutual
        super().__init__()

    @property
    def url(self) -> str:
        """Where it listens, with the user that it lets in."""
        scheme = self.secure_scheme if self.tls else self.scheme
        return f"{scheme}://{self.credentials}127.0.0.1:{self.port}"

    @property
    def credentials(self) -> str:
        """What stands in the URL before the host."""
        return f"{USER}:{self.password}@" if self.password else ""

    @property
    def ports(self) -> list[int]:
        """All ports that it listens on."""
        return [self.port]

    @property
    def address(self) -> str:
        """What it listens on: loopback, which inside a container nobody reaches."""
        return "127.0.0.1" if self.docker is None else "0.0.0.0"

    @property
    def container(self) -> Container | None:
        """What it runs in, if not on this machine itself."""
        if self.docker is None:
            return None
        return Container(self.docker, self.program.image, self.folder)

    def launch(self) -> list[str]:
        """Give the command with all that it runs in."""
        command = self.command()
        if self.container:
            command = self.container.run(command, self.ports, self.environment)
        return self.as_user(command)

    def tool(self, command: list[str]) -> list[str]:
        """Give a command of another program with all that it runs in."""
        if self.container:
            return self.container.tool(command, self.environment)
        return self.as_user(command)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.container:
            self.container.signal(number)
        else:
            super().signal(number)

    def keep(self, name: str) -> str:
        """Return the path of a PEM file of :attr:`tls`, brought into the folder."""
        assert self.tls is not None
        path = self.folder / f"{name}.pem"
        shutil.copyfile(self.tls[name], path)
        return str(path)

    def write(self, name: str, text: str) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    def greet(self, connection: socket.socket) -> bool:
        """Whether the server answers on a new connection."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers in its protocol; before that it may listen already."""
        with contextlib.suppress(OSError), self.dial() as connection:
            return self.greet(connection)
        return False

    def dial(self) -> socket.socket:
        """Return a connection to it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        return self._secure(connection) if self.tls else connection

    def _secure(self, connection: socket.socket) -> socket.socket:
        assert self.tls is not None
        context = ssl.create_default_context(cafile=self.tls["ca"])
        context.load_cert_chain(self.tls["client_cert"], self.tls["client_key"])
        try:
            return context.wrap_socket(connection, server_hostname="127.0.0.1")
        except BaseException:
            connection.close()
            raise
