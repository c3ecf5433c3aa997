"""Our own service as an object, beside the real Nest peers of ``harness.py``."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.brokers.ports import broker_port

from .process import LineChild

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.interop.app"
LARGE = 16 * 1024 * 1024


def entry(transport: str, handlers: Sequence[str], **options: Any) -> dict[str, Any]:
    """Give an entry of ``SERVERS`` by a broker, which takes 200 calls at once."""
    return {
        "TRANSPORT": transport,
        "OPTIONS": options,
        "CONCURRENCY": 250,
        "HANDLERS": handlers,
    }


class OurServer:
    """``runmicroservice`` in a process of its own.

    ``servers`` are entries of ``SERVERS`` by name. Those without a ``TRANSPORT`` are
    TCP on loopback, and ``ports`` says where each of them listens.
    """

    def __init__(self, **servers: Mapping[str, Any]) -> None:
        servers = servers or {"default": {}}
        self.ports = {
            name: broker_port()
            for name, entry in servers.items()
            if "TRANSPORT" not in entry
        }
        self.process = LineChild(
            [sys.executable, "-m", APP],
            cwd=ROOT,
            environment=self._environment(servers),
        )

    def _environment(self, servers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        entries = {name: self._entry(name, entry) for name, entry in servers.items()}
        settings = {"EXTRA_APPS": [APP], "MICROSERVICES": {"SERVERS": entries}}
        return {
            "DJANGO_SETTINGS_MODULE": "tests.management.settings",
            "TEST_SETTINGS": json.dumps(settings),
            "TEST_DATABASE": ":memory:",
            "PYTHONWARNINGS": "error",
        }

    def _entry(self, name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        options = entry.get("OPTIONS", {})
        if name in self.ports:
            options = {"port": self.ports[name], **options}
        return {"HANDLERS": [APP], **entry, "OPTIONS": options}

    @property
    def port(self) -> int:
        """The port of the first server."""
        return next(iter(self.ports.values()))

    def drain(self) -> None:
        """Ask it to finish what it accepted, and to end."""
        self.process.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Return the exit code, at the latest after a drain's time."""
        return self.process.process.wait(20)

    def close(self) -> None:
        """End it."""
        self.process.close()
