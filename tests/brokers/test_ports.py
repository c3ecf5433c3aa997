"""Ports: nobody's, and each for one user."""

import socket

import pytest

from tests.brokers.ports import Ports, broker_port


@pytest.fixture(autouse=True)
def _all_of_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no part to other workers."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)


def test_port_comes_once() -> None:
    """None comes twice before all others came, though nobody listens on it yet."""
    some = Ports(broker_port.ports[:100])
    given = [some() for _ in range(10)]
    assert len(set(given)) == len(given)


def test_port_that_is_taken() -> None:
    """It is left out; where all are the text says which."""
    with socket.create_server(("127.0.0.1", broker_port())) as server:
        port = server.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"No port from {port} to {port} is"):
            Ports(range(port, port + 1))()


def test_workers_share_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a part of its own."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    parts = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        parts.append(set(Ports(range(20_000, 22_000)).ports))
    assert [len(part) for part in parts] == [1000, 1000]
    assert not parts[0] & parts[1]
