"""The settings of the project that each page's examples are put into.

They are what ``django-admin startproject mysite`` writes, as far as examples need it.
"""

import os
from collections.abc import Callable
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

BASE_DIR = Path.cwd()
SECRET_KEY = "not a secret: nothing but the examples uses it"
DEBUG = True
ALLOWED_HOSTS: list[str] = []
INSTALLED_APPS: list[str] = []
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "mysite.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "TEST": {"NAME": BASE_DIR / "test.sqlite3"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

# Pages use the ports from 3000 on; examples run on free ones.
FIRST_PORT = 3000
PORTS = [int(port) for port in os.environ.get("EXAMPLE_PORTS", "").split()]


def moved_port(port: int) -> int:
    """Return the port that stands for the one on the page."""
    return PORTS[port - FIRST_PORT]


def shown_ports(text: str) -> str:
    """Put the ports of the page back into what a command wrote."""
    for number, port in enumerate(PORTS, FIRST_PORT):
        text = text.replace(f":{port}", f":{number}")
    return text


def moved(entry: Any) -> Any:
    """Return an entry of settings, its ports moved and its hosts this machine's."""
    if not isinstance(entry, dict):
        return _called(entry) if callable(entry) else entry
    options = {key: _moved_option(key, value) for key, value in _options(entry).items()}
    return {**entry, "OPTIONS": options} if options else entry


def _options(entry: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = entry.get("OPTIONS", {})
    is_tcp = str(entry.get("TRANSPORT", "TCP")).rpartition(".")[2].startswith("TCP")
    if not is_tcp or not isinstance(given, dict):
        return {}
    return given if "url" in given else {"port": FIRST_PORT, **given}


def _moved_option(key: str, value: Any) -> Any:
    if key == "port":
        return moved_port(value)
    if key == "host":
        return "127.0.0.1"
    if key == "url":
        return f"tcp://127.0.0.1:{moved_port(int(value.rpartition(':')[2]))}"
    return value


def _called(entry: Callable[[], Any]) -> Callable[[], Any]:
    if iscoroutinefunction(entry):

        async def alater() -> Any:
            return moved(await entry())

        return alater
    return lambda: moved(entry())


def moved_settings(microservices: dict[str, Any]) -> dict[str, Any]:
    """Return ``MICROSERVICES`` with the ports of the page moved."""
    result = {"SERVERS": {"default": {}}, **microservices}
    for kind in ("SERVERS", "CLIENTS"):
        result[kind] = {n: moved(e) for n, e in result.get(kind, {}).items()}
    return result
