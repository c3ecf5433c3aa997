"""Checks of what matters in production only."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004

from . import TAG
from .found import Found


def open_servers(found: Found) -> Iterator[CheckMessage]:
    """W004."""
    for name, config in found.servers.items():
        transport: Any = config.transport
        if not transport.listens or transport.tls_options:
            continue
        if not _is_loopback(transport.host):
            yield Warning(
                f"Server {name!r} listens on {transport.host!r} without TLS: "
                "whoever reaches the port can call every handler.",
                hint="Give it tls_options, or bind it to 127.0.0.1.",
                id=f"{TAG}.W004",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def third_party_handlers(found: Found) -> Iterator[CheckMessage]:
    """W005."""
    for name in sorted(found.by_default):
        handlers = found.servers[name].handlers
        owners = {h.module: apps.get_containing_app_config(h.module) for h in handlers}
        foreign = {a.name for a in owners.values() if a and not _is_own(a)}
        for app in sorted(foreign):
            yield Warning(
                f"Server {name!r} serves the handlers of {app!r}, an app that is not "
                "of this project, because it has no HANDLERS.",
                hint="List the apps to serve in HANDLERS.",
                id=f"{TAG}.W005",
            )


def _is_own(app: AppConfig) -> bool:
    path = Path(app.path).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    base = getattr(settings, "BASE_DIR", None)
    return base is None or path.is_relative_to(Path(base).resolve())


def unverified(found: Found) -> Iterator[CheckMessage]:
    """W006."""
    for path, _, _, option, options in found.with_tls():
        if options.get("reject_unauthorized") is False:
            yield Warning(
                f"{path}: reject_unauthorized is False, so the certificate of the "
                "other side is not verified.",
                hint=f"Name whom to trust in {option}['ca'] instead.",
                id=f"{TAG}.W006",
            )


def unshared(found: Found) -> Iterator[CheckMessage]:
    """W007."""
    for name, config in found.servers.items():
        transport = config.transport
        if not (transport.shares_work or transport.in_process):
            yield Warning(
                f"Server {name!r}: {type(transport).__name__} cannot share work as it "
                "is set up, so that each replica handles each message.",
                hint="Run one replica, or use a transport that shares work.",
                id=f"{TAG}.W007",
            )


CHECKS = (open_servers, third_party_handlers, unverified, unshared)
