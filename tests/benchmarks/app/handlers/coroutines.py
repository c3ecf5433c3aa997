"""Handlers that are coroutine functions: they run on the loop."""

from typing import Any

from django_microservices import event_pattern, message_pattern

_counts = {"created": 0}


@message_pattern({"cmd": "sum"})
async def accumulate(data: list[int]) -> int:
    """Add up."""
    return sum(data)


@message_pattern({"cmd": "echo"})
async def echo(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give everything back."""
    return data


@event_pattern("created")
async def created(data: Any) -> None:
    """Count one."""
    _counts["created"] += 1


@message_pattern({"cmd": "received"})
async def received(data: int) -> int:
    """Say how many events were counted."""
    return _counts["created"]
