"""What our service answers: the twin of ``nest/server.mjs``."""

import asyncio
import datetime
import decimal
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied

from django_microservices import (
    UNSET,
    MessageContext,
    RpcException,
    event_pattern,
    message_pattern,
    use_guards,
)

NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


class Partial(msgspec.Struct):
    """A payload whose members may be absent, which is not null."""

    kept: int | None = None
    dropped: int | msgspec.UnsetType | None = UNSET


CONSTANTS: dict[str, Any] = {
    "null": None,
    "false": False,
    "true": True,
    "zero": 0,
    "empty": "",
    "undefined": UNSET,
    "list": [],
    "object": {},
    "emoji": "naïve 👍🏽 日本語",
    "date": NOON,
    "milliseconds": NOON.replace(microsecond=5000),
    "day": NOON.date(),
    "decimal": decimal.Decimal("0.10"),
    "uuid": uuid.UUID(int=7),
    "nan": float("nan"),
    "partial": Partial(1),
}

ERRORS: dict[str, Exception] = {
    "text": RpcException("broken"),
    "emptyText": RpcException(""),
    "object": RpcException({"code": 42, "reason": "broken"}),
    "list": RpcException(["broken", 42]),
    "emptyObject": RpcException({}),
    "plain": ValueError("a secret"),
    "denied": PermissionDenied("a secret"),
}


# --- requests ---------------------------------------------------------------------


@message_pattern({"cmd": "sum"})
def total(data: list[int]) -> int:
    """Add numbers up, on a thread."""
    return sum(data)


@message_pattern({"b": 1, "a": {"d": 2, "c": 3}})
async def deep(data: Any) -> Any:
    """Stand under an object pattern whose keys are in no order."""
    return {"deep": data}


@message_pattern(7)
async def seven(data: Any) -> str:
    """Stand under a number."""
    return "seven"


@message_pattern("echo", "größe.👍")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("slow.echo")
async def slow_echo(data: Any) -> Any:
    """Return what came, a little later."""
    await asyncio.sleep(0.2)
    return data


@message_pattern("constant")
async def constant(data: str) -> Any:
    """Return a value by name."""
    return CONSTANTS[data]


@message_pattern("fail")
async def fail(data: str) -> None:
    """Fail on the loop."""
    raise ERRORS[data]


@message_pattern("fail.sync")
def fail_sync(data: str) -> None:
    """Fail on a thread."""
    raise ERRORS[data]


def _never(context: MessageContext[Any]) -> bool:
    return False


@message_pattern("guarded")
@use_guards(_never)
async def guarded(data: Any) -> str:
    """Stand behind a guard that lets nobody in."""
    return "unreachable"


@message_pattern("partial")
async def partial(data: Partial) -> list[str]:
    """Name the members that came."""
    return [
        name for name, value in msgspec.structs.asdict(data).items() if value != UNSET
    ]


@message_pattern("after")
def after(data: datetime.datetime) -> datetime.datetime:
    """Add a day to a date."""
    return data + datetime.timedelta(days=1)


@message_pattern("length")
async def length(data: str) -> int:
    """Count the characters of a text."""
    return len(data)


@message_pattern("metadata")
async def metadata(data: Any, context: MessageContext[Any]) -> dict[str, str]:
    """Return the texts beside the payload."""
    return context.headers


@message_pattern("peer")
async def peer(data: Any, context: MessageContext[Any]) -> str:
    """Return whom the caller's certificate names."""
    return str(context.wire.identity.common_name)


class _Meeting:
    """Requests that all wait until the last of them is here."""

    def __init__(self) -> None:
        self.present = 0
        self.complete = asyncio.Event()


meetings: dict[int, _Meeting] = {}


@message_pattern("meet")
async def meet(data: int) -> int:
    """Answer once so many requests are in flight."""
    meeting = meetings.setdefault(data, _Meeting())
    meeting.present += 1
    number = meeting.present
    if meeting.present == data:
        meeting.complete.set()
        del meetings[data]
    await meeting.complete.wait()
    return number


# --- streams ----------------------------------------------------------------------


@message_pattern("stream.generator")
def count(data: int) -> Iterator[int]:
    """Stream numbers from a thread."""
    yield from range(data)


@message_pattern("stream.async")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers from the loop."""
    for number in range(data):
        yield number


@message_pattern("stream.paused")
async def paused(data: int) -> AsyncIterator[int]:
    """Let the loop turn before each number, and before the end."""
    for number in range(data):
        await asyncio.sleep(0.001)
        yield number
    await asyncio.sleep(0.001)


@message_pattern("stream.values")
def values(data: list[Any]) -> Iterator[Any]:
    """Stream what came."""
    yield from data


@message_pattern("stream.failing")
def failing(data: int) -> Iterator[int]:
    """Fail after some numbers."""
    yield from range(data)
    raise RpcException({"code": 42, "reason": "broken"})


@message_pattern("stream.endless")
async def endless(data: Any) -> AsyncIterator[int]:
    """Never end by itself; record how it does."""
    number = 0
    try:
        while True:
            await asyncio.sleep(0.001)
            yield number
            number += 1
    finally:
        record("endless ended", data)


# --- events -----------------------------------------------------------------------

recorded: list[dict[str, Any]] = []
changed = threading.Condition()


def record(handler: str, data: Any) -> None:
    """Keep what happened for the tests to ask for."""
    with changed:
        recorded.append({"handler": handler, "data": data})
        changed.notify_all()


@event_pattern("created")
def created(data: Any) -> None:
    """Take an event, on a thread."""
    record("first", data)


@event_pattern("created")
async def acreated(data: Any) -> None:
    """Take the same event, on the loop."""
    record("second", data)


@event_pattern({"topic": "orders", "kind": "paid"})
def paid(data: Any) -> None:
    """Take an event of an object pattern."""
    record("object", data)


@event_pattern("failed")
async def failed(data: Any) -> None:
    """Record an event, and fail."""
    record("failed", data)
    raise ValueError("a secret")


@message_pattern("events")
def events(data: int) -> list[dict[str, Any]]:
    """Return what was recorded, once it is so many."""
    with changed:
        changed.wait_for(lambda: len(recorded) >= data, timeout=15)
        return list(recorded)


@message_pattern("events.forget")
def forget(data: Any) -> bool:
    """Begin a new record."""
    with changed:
        recorded.clear()
    return True


# --- a request that is held -------------------------------------------------------

released = asyncio.Event()


@message_pattern("hold")
async def hold(data: Any) -> str:
    """Record that it runs, and answer when it is released."""
    record("hold", data)
    await released.wait()
    return "held"


@message_pattern("release")
async def release(data: Any) -> None:
    """Let those that are held answer."""
    released.set()
    released.clear()
