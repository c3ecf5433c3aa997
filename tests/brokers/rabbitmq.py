"""RabbitMQ for the tests: ``TEST_RABBITMQ_URL``, else a private server."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from demo_project.brokers import LOOPBACK, rabbitmq_environment

from .amqp import Talk
from .broker import USER, BrokerProcess
from .ports import broker_port
from .process import ServerProcess
from .programs import Program
from .server import Server

PROGRAM = Program(
    "rabbitmq-server",
    package="rabbitmq-server",
    image="rabbitmq:3.13",
    variable="TEST_RABBITMQ_URL",
    folders=("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin"),
)
EPMD = Program("epmd", package="erlang-base", variable=PROGRAM.variable)


class PortMapper(ServerProcess):
    """Erlang's epmd, by which nodes find each other; Erlang's own would stay behind."""

    name = "epmd"

    def command(self) -> list[str]:
        """Listen on loopback only."""
        return [str(EPMD.get()), "-port", str(self.port), "-address", "127.0.0.1"]


class RabbitMQProcess(BrokerProcess):
    """A private node without plugins, and a port mapper of its own."""

    name = "rabbitmq"
    program = PROGRAM
    scheme, secure_scheme = "amqp", "amqps"
    mapper: PortMapper | None = None

    @property
    def user_and_password(self) -> tuple[str, str]:
        """Whom it lets in: without a password of its own, RabbitMQ's guest."""
        return (USER, self.password) if self.password else ("guest", "guest")

    @property
    def credentials(self) -> str:
        """What stands in the URL before the host."""
        return "{}:{}@".format(*self.user_and_password)

    def prepare(self) -> None:
        """Write the configuration, and start the port mapper."""
        self.write("plugins", "[].")
        self.write("rabbitmq.conf", "\n".join(self._settings()))
        self.environment = self._environment()
        if self.docker is None:  # a container has its own, which ends with it
            self.mapper = PortMapper()
            self.environment["ERL_EPMD_PORT"] = str(self.mapper.port)
            self.mapper.start()

    def _settings(self) -> list[str]:
        user, password = self.user_and_password
        lines = [
            f"default_user = {user}",
            f"default_pass = {password}",
            "loopback_users = none",  # as a container's client is not on its loopback
        ]
        if self.tls is None:
            return [*lines, f"listeners.tcp.1 = {self.address}:{self.port}"]
        return [
            *lines,
            "listeners.tcp = none",
            f"listeners.ssl.1 = {self.address}:{self.port}",
            f"ssl_options.cacertfile = {self.keep('ca')}",
            f"ssl_options.certfile = {self.keep('server_cert')}",
            f"ssl_options.keyfile = {self.keep('server_key')}",
            f"ssl_options.verify = verify_{'peer' if self.mutual else 'none'}",
            f"ssl_options.fail_if_no_peer_cert = {str(self.mutual).lower()}",
        ]

    def _environment(self) -> dict[str, str]:
        """Say what a node is told, and rabbitmqctl."""
        node, tool_port = f"tests-{self.port}", str(broker_port())
        return rabbitmq_environment(self.folder, node, broker_port()) | {
            "RABBITMQ_CTL_DIST_PORT_MIN": tool_port,
            "RABBITMQ_CTL_DIST_PORT_MAX": tool_port,
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK,
        }

    def command(self) -> list[str]:
        """Run the node; everything that it needs is in the environment."""
        return [str(self.binary), "-noinput"]

    def greet(self, connection: socket.socket) -> bool:
        """Whether its user may work."""
        with Talk(connection, *self.user_and_password):
            return True

    def close(self) -> None:
        """Stop for good, and the port mapper after it."""
        super().close()
        if self.mapper is not None:
            self.mapper.close()


class RabbitMQ(Server[RabbitMQProcess]):
    """A RabbitMQ node."""

    variable = PROGRAM.variable
    kind = RabbitMQProcess

    def ctl(self, *words: Any) -> str:
        """Run rabbitmqctl, as ``ctl("list_queues", "name", "messages")``.

        It prints nothing but the answer.
        """
        tool = str(self.ours.binary.with_name("rabbitmqctl"))
        return self.ours.run([tool, "--quiet", *map(str, words)])

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Have it block publishers inside the block."""
        before = self.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")
        self.ctl("set_vm_memory_high_watermark", 0)
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", before.strip())
