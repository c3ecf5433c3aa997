"""How a Python client obeys the driver: a line of JSON in, a line of JSON out."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol

RECEIVED = {"cmd": "received"}
PATIENCE = 20.0  # seconds until events that were not counted are called lost
LINE = 4 * 1024 * 1024


class Caller(Protocol):
    """A candidate's client.

    With a true ``confirms`` it emits a burst together: each waits for the broker.
    """

    def send(self, pattern: Any, data: Any) -> Awaitable[Any]:
        """Send a request, and give its answer."""

    def emit(self, pattern: Any, data: Any) -> Awaitable[None]:
        """Emit an event; wait only where the wire is full."""


async def obey(caller: Caller) -> None:
    """Do what stdin says until it ends."""
    lines = asyncio.StreamReader(limit=LINE)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    _say({"id": 0})
    async for line in lines:
        command = json.loads(line)
        run = _events if command["op"] == "events" else _requests
        _say({"id": command["id"], **await run(caller, command)})
    pipe.close()


def obey_sync(send: Callable[[Any, Any], Any]) -> None:
    """Do what stdin says, one blocking request at a time."""
    _say({"id": 0})
    for line in sys.stdin:
        command = json.loads(line)
        _say({"id": command["id"], **_sync_requests(send, command)})


async def _requests(caller: Caller, command: dict[str, Any]) -> dict[str, Any]:
    send, pattern, data = caller.send, command["pattern"], command["data"]
    answer = await send(pattern, data)
    if answer != command["answer"]:
        return {"wrong": f"{answer!r:.200}"}
    start = perf_counter()
    end = start + command["seconds"]

    async def work() -> int:
        count = 0
        while perf_counter() < end:
            await send(pattern, data)
            count += 1
        return count

    counts = await asyncio.gather(*(work() for _ in range(command["concurrency"])))
    return {"count": sum(counts), "seconds": perf_counter() - start}


async def _events(caller: Caller, command: dict[str, Any]) -> dict[str, Any]:
    emit, pattern, data = caller.emit, command["pattern"], command["data"]
    before = await caller.send(RECEIVED, 0)
    burst, together = range(command["concurrency"]), getattr(caller, "confirms", False)
    count, start = 0, perf_counter()
    end = start + command["seconds"]
    while perf_counter() < end:
        if together:
            await asyncio.gather(*(emit(pattern, data) for _ in burst))
        else:
            for _ in burst:
                await emit(pattern, data)
        count += command["concurrency"]
        await asyncio.sleep(0)
    while (received := await caller.send(RECEIVED, 0) - before) < count:
        if perf_counter() > end + PATIENCE:
            return {"wrong": f"{count - received} of {count} events were lost"}
    return {"count": count, "seconds": perf_counter() - start}


def _sync_requests(
    send: Callable[[Any, Any], Any], command: dict[str, Any]
) -> dict[str, Any]:
    pattern, data = command["pattern"], command["data"]
    answer = send(pattern, data)
    if answer != command["answer"]:
        return {"wrong": f"{answer!r:.200}"}
    count, start = 0, perf_counter()
    end = start + command["seconds"]
    while perf_counter() < end:
        send(pattern, data)
        count += 1
    return {"count": count, "seconds": perf_counter() - start}


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
