"""Our own service as an object, beside the real Nest peers of ``harness.py``."""

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.brokers.process import free_port

from .process import LineChild

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.interop.app"
LARGE = 16 * 1024 * 1024


class OurServer:
    """``runmicroservice`` in a process of its own, on loopback.

    ``servers`` are entries of ``SERVERS`` by name; ``ports`` says where each listens.
    """

    def __init__(self, **servers: Mapping[str, Any]) -> None:
        servers = servers or {"default": {}}
        self.ports = {name: free_port() for name in servers}
        self.process = LineChild(
            [sys.executable, "-m", APP],
            cwd=ROOT,
            environment=self._environment(servers),
        )

    def _environment(self, servers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        entries = {
            name: {**entry, "OPTIONS": {"port": port, **entry.get("OPTIONS", {})}}
            for (name, entry), port in zip(
                servers.items(), self.ports.values(), strict=True
            )
        }
        settings = {
            "EXTRA_APPS": [APP],
            "MICROSERVICES": {
                "SERVERS": {
                    name: {"HANDLERS": [APP], **entry}
                    for name, entry in entries.items()
                }
            },
        }
        return {
            "DJANGO_SETTINGS_MODULE": "tests.management.settings",
            "TEST_SETTINGS": json.dumps(settings),
            "TEST_DATABASE": ":memory:",
            "PYTHONWARNINGS": "error",
        }

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
