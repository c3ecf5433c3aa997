"""Running the checks, and reading what they say."""

from collections.abc import Callable
from typing import Any

from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from django_microservices import checks

IMPORTS = """
from typing import Any
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django_microservices import Controller, event_pattern, message_pattern
"""
SYNC = "@message_pattern('a')\ndef a(data): ..."

Write = Callable[[str], str]


def found(*, deploy: bool = False, **entries: Any) -> list[CheckMessage]:
    """Run the checks with these settings."""
    with override_settings(MICROSERVICES=entries):
        every = run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    return [message for message in every if message.id]


def ids(messages: list[CheckMessage]) -> list[str]:
    """Return the ids of messages, but W002: other tests mark functions, too."""
    every = [(message.id or "").partition(".")[2] for message in messages]
    return [id_ for id_ in every if id_ != "W002"]


def served(*modules: str, **entry: Any) -> dict[str, Any]:
    """Serve these modules."""
    return {"default": {"HANDLERS": list(modules), **entry}}


def one(messages: list[CheckMessage], id_: str) -> CheckMessage:
    """Return the only message with this id."""
    (message,) = (m for m in messages if m.id == f"microservices.{id_}")
    return message


def deployed(**entries: Any) -> list[str]:
    """Return the ids of the warnings under ``--deploy``."""
    return [id_ for id_ in ids(found(deploy=True, **entries)) if id_ != "I002"]
