"""What the tests with peers that mean harm talk to.

The rows are those of ``reference/reliability.md`` 2c and 2d.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from django_microservices import (
    MessageContext,
    event_pattern,
    message_pattern,
)
from django_microservices.transports import TCPTransport
from tests.endpoints.ends import serving

from .peers import Peer

KB, MB = 1024, 1024 * 1024
UNREADABLE = {
    "status": "error",
    "message": "The message could not be read: it nests too deeply, or is no JSON of "
    "this wire.",
}
INTERNAL = {"status": "error", "message": "Internal server error"}


@message_pattern("echo", "émoji😀")
async def echo(data: Any) -> Any:
    """Answer with the payload."""
    return data


@message_pattern({"cmd": "who", "of": "a"})
async def who(data: Any) -> str:
    """Answer to an object pattern."""
    return "who"


@message_pattern("pattern")
async def pattern(context: MessageContext[Any]) -> str:
    """Answer with the pattern as it was received."""
    return context.pattern


@event_pattern("fails")
async def fails(context: MessageContext[Any]) -> None:
    """Fail, with what the peer sent in the error."""
    raise ZeroDivisionError


@contextlib.asynccontextmanager
async def served(port: int, **options: Any) -> AsyncIterator[Any]:
    """Serve the handlers above."""
    transport = TCPTransport(port=port, **options)
    handlers = (echo, who, pattern, fails)
    async with serving(port, *handlers, transport=transport) as server:
        yield server


async def lives(port: int) -> None:
    """See that an honest peer is served."""
    peer = await Peer.connect(port)
    peer.request("still here")
    assert (await peer.read())["response"] == "still here"
    peer.close()


async def ask(port: int, text: bytes) -> Any:
    """Send one text; return the answer, or ``None`` when we were cut."""
    peer = await Peer.connect(port)
    peer.send(text)
    try:
        return await peer.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        peer.close()
