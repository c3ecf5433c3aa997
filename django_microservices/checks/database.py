"""Checks of the connections that sync handlers keep."""

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Info, Warning  # noqa: A004
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .. import conf
from . import TAG
from .found import Found


def connection_per_message(found: Found) -> Iterator[CheckMessage]:
    """W003."""
    aliases, options = _unkept(found), _options()
    if aliases and options and not options["database_max_age"]:
        yield Warning(
            f"MICROSERVICES['DATABASE_MAX_AGE'] is 0, as is CONN_MAX_AGE of {aliases}: "
            "sync handlers connect anew for each message.",
            hint="Leave DATABASE_MAX_AGE at its default of 60 seconds.",
            id=f"{TAG}.W003",
        )


def kept_connections(found: Found) -> Iterator[CheckMessage]:
    """I002."""
    aliases, options = _unkept(found), _options()
    if aliases and options and options["database_max_age"]:
        age = options["database_max_age"]
        threads = options["sync_threads"] + options["stream_threads"]
        yield Info(
            f"CONN_MAX_AGE of {aliases} is 0; the threads of sync handlers keep their "
            f"connections for {age:g} s nevertheless (DATABASE_MAX_AGE).",
            hint=f"Each process of runmicroservice holds up to {threads} connections "
            "to each database: see that the database allows them.",
            id=f"{TAG}.I002",
        )


def _unkept(found: Found) -> str:
    """Name the databases whose connections Django would close after each message."""
    if not any(not h.is_async or h.uses_database for h in found.handlers):
        return ""
    given = {alias: connections[alias].settings_dict for alias in connections}
    return ", ".join(repr(a) for a, of in given.items() if of["CONN_MAX_AGE"] == 0)


def _options() -> dict[str, Any] | None:
    try:
        return conf.microservice_options()
    except ImproperlyConfigured:
        return None  # E001 says so


CHECKS = (connection_per_message,)
DEPLOY_CHECKS = (kept_connections,)
