"""Checks of what matters in production only."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004

from . import TAG
from .found import Found


def open_servers(found: Found) -> Iterator[CheckMessage]:
    """W004."""
    for name, config in found.servers.items():
        transport = config.transport
        host = getattr(transport, "host", "")
        has_tls = getattr(transport, transport.tls_option, None) is not None
        if transport.listens and not (has_tls or _is_loopback(host)):
            yield Warning(
                f"Server {name!r} listens on {host!r} without TLS: whoever reaches the "
                "port can call every handler.",
                hint=f"Give it {transport.tls_option}, or bind it to 127.0.0.1.",
                id=f"{TAG}.W004",
            )


def plain_brokers(found: Found) -> Iterator[CheckMessage]:
    """W008."""
    for path, _, transport in found.transports():
        hosts = [host for host in transport.plain_hosts if not _is_loopback(host)]
        if hosts:
            yield Warning(
                f"{path}: it talks to {', '.join(map(repr, hosts))} without TLS: "
                "whoever is on the way reads and changes messages and passwords.",
                hint="Name it by a URL of TLS: rediss, tls, amqps, mqtts.",
                id=f"{TAG}.W008",
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
    for path, _, transport, options in found.with_tls():
        if options.get("reject_unauthorized") is False:
            yield Warning(
                f"{path}: reject_unauthorized is False, so the certificate of the "
                "other side is not verified.",
                hint=f"Name whom to trust in {transport.tls_option}['ca'] instead.",
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


CHECKS = (open_servers, plain_brokers, third_party_handlers, unverified, unshared)
