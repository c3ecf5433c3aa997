"""Row 4 with a host that really vanishes: no packet of it comes, and none arrives."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import Figures

from .network import Network

LONGEST = 100.0  # seconds: ten times what is promised

SILENT = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
kept = []
while True:
    kept.append(listener.accept())
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """Give two hosts on a wire."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"No network namespaces here: {error}")
        yield network


def test_vanished_host(
    network: Network, free_port: Callable[[], int], figure: Figures
) -> None:
    """4: Clients find out, of our server and of a stranger, idle and amid output."""
    ours, other = free_port(), free_port()
    servers = [
        ["-m", "tests.faults.served", str(ours), network.here],
        ["-c", SILENT, network.here, str(other)],
    ]
    for arguments in servers:
        server = network.run(here=True, arguments=arguments)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
    watching = ["-m", "tests.faults.watching", network.here, str(ours), str(other)]
    clients = network.run(here=False, arguments=watching)
    assert clients.stdin is not None
    assert clients.stdout is not None
    assert clients.stdout.readline() == "ready\n"
    network.cut()
    found, _ = clients.communicate("cut\n", timeout=LONGEST)
    (first, late), *others = (line.split() for line in found.splitlines())
    assert first == "MessageTimeout"
    figure("4: a deadline of 1 s at a vanished host is late by", float(late) - 1, 0.02)
    assert sorted(name for name, _ in others) == ["idle", "keep-alive", "unsent"]
    for name, seconds in others:
        figure(f"4: a vanished host is found: {name}", float(seconds), 10.0)
