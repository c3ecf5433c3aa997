"""What the environment says of the demo; read by both services and by their starter.

``DEMO_HTTP_PORT`` and ``DEMO_TCP_PORT`` are the ports of the two services on loopback,
``DEMO_DATABASE`` is the users' SQLite file, ``BROKER`` is kept for other wires.
"""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
LAST_PORT = 65_535


def http_port() -> int:
    """Return the port of the gateway's page."""
    return _port("DEMO_HTTP_PORT", 8000)


def tcp_port() -> int:
    """Return the port on which the users service answers messages."""
    return _port("DEMO_TCP_PORT", 3001)


def database() -> str:
    """Return the path of the users' database."""
    return os.environ.get("DEMO_DATABASE") or str(HERE / "users.sqlite3")


def refuse_broker() -> None:
    """Raise ``ImproperlyConfigured`` where a broker is asked for."""
    broker = os.environ.get("BROKER", "")
    if broker not in {"", "tcp"}:
        message = f"BROKER={broker}: the demo speaks only TCP yet; leave BROKER empty."
        raise ImproperlyConfigured(message)


def _port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LAST_PORT):
        message = f"{name}={text}: a port is a number from 1 to {LAST_PORT}."
        raise ImproperlyConfigured(message)
    return int(text)
