"""Ports that nobody listens on: a part for brokers, the rest for the tests."""

import itertools
import os
import random
import socket
import threading
from collections.abc import Iterator


class Ports:
    """Free ports of a range; none comes again before all others have come.

    So one that somebody has for later, or has stopped listening on for a while, stays
    theirs. The workers of a run have parts of their own, and the start is random, so
    that test runs beside this one seldom try the same port.
    """

    def __init__(self, ports: range) -> None:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        each = len(ports) // workers
        self.ports = ports[worker * each :][:each]
        start = random.SystemRandom().randrange(each)
        self._next: Iterator[int] = itertools.cycle(
            [*self.ports[start:], *self.ports[:start]]
        )
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Give the next one."""
        with self._lock:
            for port in itertools.islice(self._next, len(self.ports)):
                if is_free(port):
                    return port
        message = f"No port from {self.ports[0]} to {self.ports[-1]} is free."
        raise RuntimeError(message)


def is_free(port: int) -> bool:
    """Whether nobody has ``port``, for TCP or UDP, on any address."""
    return all(can_bind(port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))


def can_bind(port: int, kind: socket.SocketKind) -> bool:
    """Whether a socket of this kind can be bound to ``port``."""
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


broker_port = Ports(range(20_000, 22_000))
test_port = Ports(range(22_000, 32_001))
