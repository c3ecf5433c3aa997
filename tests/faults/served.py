"""A server in a process of its own: ``python -m tests.faults.served PORT [HOST]``."""

import asyncio
import sys
import time
from typing import Any

from django_microservices import message_pattern
from django_microservices.transports import TCPTransport

from .serving import serve


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("slow")
async def slow(data: Any) -> Any:
    """Return it after a while."""
    await asyncio.sleep(0.05)
    return data


@message_pattern("sync")
def sync(data: Any) -> Any:
    """Return it from a thread."""
    time.sleep(0.005)
    return data


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never."""
    await asyncio.Event().wait()


if __name__ == "__main__":
    port, host = [*sys.argv[1:], "127.0.0.1"][:2]
    transport = TCPTransport(host=host, port=int(port))
    sys.exit(serve(transport, echo, slow, sync, hang, concurrency=2000))
