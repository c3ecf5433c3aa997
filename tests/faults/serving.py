"""Serves in a process of its own, until a signal comes."""

import os
from collections.abc import Callable
from typing import Any

import django

from django_microservices.runtime.loop import run
from django_microservices.runtime.microservice import Microservice
from django_microservices.transports import Transport
from tests.endpoints.ends import server_of


def serve(
    transport: Transport, *functions: Callable[..., Any], concurrency: int
) -> int:
    """Serve decorated functions, and print when ready; return the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    server = server_of(transport, *functions, concurrency=concurrency)
    return run(Microservice([server]), lambda _: print("ready", flush=True))  # noqa: T201
