"""Handlers that are plain functions: they run on the threads."""

import threading
from typing import Any

from django_microservices import event_pattern, message_pattern

_lock = threading.Lock()
_counts = {"created": 0}


@message_pattern({"cmd": "sum"})
def accumulate(data: list[int]) -> int:
    """Add up."""
    return sum(data)


@message_pattern({"cmd": "echo"})
def echo(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give everything back."""
    return data


@event_pattern("created")
def created(data: Any) -> None:
    """Count one; the threads share the count."""
    with _lock:
        _counts["created"] += 1


@message_pattern({"cmd": "received"})
def received(data: int) -> int:
    """Say how many events were counted."""
    return _counts["created"]
