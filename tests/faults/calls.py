"""What the fault tests of clients call, and what they look at."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from django_microservices import MicroserviceError, Status, message_pattern
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.session import Session

cancelled: list[Any] = []


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never, and note that nobody waits any more."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append(data)


def session_of(client: Client) -> Session:
    """Return the session that serves this loop."""
    connection = client._connections.present(asyncio.get_running_loop())
    assert connection is not None
    assert connection.session is not None
    return connection.session


def is_whole(client: Client) -> bool:
    """Whether it is connected, by a link that has not just been refused."""
    if client.status != Status.CONNECTED:
        return False
    link: Any = session_of(client).link
    return not link.lost


def now() -> float:
    """Tell the loop's time."""
    return asyncio.get_running_loop().time()


async def outcome_of(call: Awaitable[Any]) -> Any:
    """Return the answer to a call, or its error."""
    try:
        return await call
    except MicroserviceError as error:
        return error


def hello() -> bytes:
    """Make the packet by which a server of ours is known."""
    return b'{"response":{"v":1},"isDisposed":true,"id":"dm-hello"}'


def answer_of(value: Any, id_: str | None) -> bytes:
    """Make the packet that answers a request."""
    packet = {"response": value, "isDisposed": True, "id": id_}
    return json.dumps(packet, separators=(",", ":")).encode()
