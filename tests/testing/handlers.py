"""What the other side answers in these tests."""

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.contrib.auth.models import User
from django.utils import translation

from django_microservices import (
    MessageContext,
    RpcException,
    clients,
    event_pattern,
    message_pattern,
)


@message_pattern("users.create")
def create(data: str) -> int:
    """Add a user."""
    return User.objects.create(username=data).pk


@message_pattern("users.create.atomic", atomic=True)
def create_and_fail(data: str) -> None:
    """Add a user, and take it back."""
    User.objects.create(username=data)
    raise RpcException("taken back")


@message_pattern("users.names")
def names(data: Any) -> list[str]:
    """List the users."""
    return [user.username for user in User.objects.order_by("pk")]


@message_pattern("users.anames", uses_database=True)
async def anames(data: Any) -> list[str]:
    """List the users with the async ORM."""
    return [user.username async for user in User.objects.order_by("pk")]


@message_pattern("users.stream")
def stream(data: Any) -> Iterator[str]:
    """Stream the users."""
    for user in User.objects.order_by("pk"):
        yield user.username


@message_pattern("count")
async def count(data: int) -> AsyncIterator[int]:
    """Stream numbers, without a pause."""
    for number in range(data):
        yield number


@message_pattern("break")
def break_(data: int) -> Iterator[int]:
    """Stream a number, and fail."""
    yield data
    raise RpcException("broken")


@message_pattern("place")
def place(data: Any, context: MessageContext[Any]) -> list[Any]:
    """Tell where this runs, and in which language."""
    current = threading.current_thread().name
    return [current, translation.get_language(), context.headers.get("x")]


@message_pattern("fail")
def fail(data: Any) -> None:
    """Fail with a secret."""
    raise ValueError("the secret")


@message_pattern("forward")
def forward(data: Any) -> Any:
    """Ask somebody else."""
    return clients["STOCK"].send("reserve", data)


@event_pattern("users.joined")
def joined(data: str) -> None:
    """Add a user."""
    User.objects.create(username=data)


@event_pattern("users.joined")
async def ajoined(data: str) -> None:
    """Add another user."""
    await User.objects.acreate(username=f"{data} again")
