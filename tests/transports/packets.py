"""Packets as they stand on the wire, and who sends or answers them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.transports.tcp.protocol import frame
from django_microservices.wire.messages import Reply

from .peers import Delivery, eventually

PEER = {"metadata": {"dm-peer": "1"}}
HELLO = {"response": {"v": 1}, "isDisposed": True, "id": "dm-hello"}
BYE = {"response": None, "isDisposed": True, "id": "dm-bye"}
ALIVE = {"response": None, "isDisposed": True, "id": "dm-alive"}
LARGE = b'"' + b"x" * 60_000 + b'"'


def answer(data: Any = 1, id_: Any = "7") -> dict[str, Any]:
    """Make the packet that answers a request."""
    return {"response": data, "isDisposed": True, "id": id_}


def hold(_: Delivery) -> None:
    """Answer nothing."""


def fill(delivery: Delivery) -> Any:
    """Send items until the peer is behind; return what waits for it to read."""
    for _ in range(1000):
        waiting = delivery.respond(Reply(delivery.message.id, LARGE, last=False))
        if waiting is not None:
            return waiting
    pytest.fail("The peer is not behind: it is gone.")


async def connections(server: Any) -> Any:
    """Wait for the server's side of a connection."""
    await eventually(lambda: server.intake.connections)
    return server.intake.connections


def kept(server: Any) -> int:
    """Count the messages that wait for room."""
    lines = (theirs.line for theirs in server.intake.connections)
    return sum(line.backlog.count for line in lines if line is not None)


async def stranger(
    free_port: Callable[[], int], *texts: bytes
) -> tuple[asyncio.Server, int]:
    """Serve texts to whoever connects, and read nothing into what comes."""
    port = free_port()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(map(frame, texts)))
        await reader.read(-1)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port), port
