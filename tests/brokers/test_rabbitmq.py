"""A RabbitMQ node: it does what its own tool says, and it is more than one process."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .process import ServerProcess, is_listening
from .rabbitmq import RabbitMQ

PATIENCE = 30.0

OWNER = """
import json, signal
from tests.brokers.test_rabbitmq import parts
from tests.brokers.rabbitmq import RabbitMQ
both = parts(RabbitMQ.private())
print(json.dumps([[str(each.folder), each.port] for each in both]), flush=True)
signal.pause()
"""


def parts(server: RabbitMQ) -> list[ServerProcess]:
    """Return the node, and its port mapper where it is not in the same container."""
    node = server.ours
    return [node] if node.mapper is None else [node, node.mapper]


def test_its_end_leaves_nothing() -> None:
    """Neither a process of it is left, nor a folder."""
    server = RabbitMQ.private()
    both = parts(server)
    assert all(is_listening(each.port) for each in both)
    server.close()
    assert not any(is_listening(each.port) for each in both)
    assert not any(each.folder.exists() for each in both)


def test_it_ends_with_its_owner() -> None:
    """When the tests are killed, every process of it ends."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        both = json.loads(owner.stdout.readline())
        owner.kill()
    deadline = time.monotonic() + PATIENCE
    while any(is_listening(port) for _, port in both):
        assert time.monotonic() < deadline
    for folder, _ in both:
        shutil.rmtree(folder)


def test_its_tool_works_on_it(private_rabbitmq: RabbitMQ) -> None:
    """What rabbitmqctl prints is returned."""
    assert private_rabbitmq.ctl("eval", "1 + 1.") == "2\n"


def test_alarm_lasts_as_long_as_its_block(private_rabbitmq: RabbitMQ) -> None:
    """Inside the block it is short of memory."""
    ask = ("eval", "rabbit_alarm:get_alarms().")
    with private_rabbitmq.memory_alarm():
        assert "memory" in private_rabbitmq.ctl(*ask)
    assert private_rabbitmq.ctl(*ask) == "[]\n"


def test_everything_is_on_loopback(private_rabbitmq: RabbitMQ) -> None:
    """No port of it, nor of its port mapper, is open to others."""
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    ports = [each.port for each in parts(private_rabbitmq)]
    ports.append(int(private_rabbitmq.ours.environment["RABBITMQ_DIST_PORT"]))
    for port in ports:
        assert f" {'0' * 8}:{port:04X}" not in listening
        assert f" {'0' * 32}:{port:04X}" not in listening
