"""A server in a process of its own: ``python -m tests.faults.served PORT [HOST]``."""

import asyncio
import os
import sys
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


def main() -> int:
    """Serve until a signal comes."""
    from django_microservices import message_pattern
    from django_microservices.runtime.loop import run
    from django_microservices.runtime.microservice import Microservice
    from django_microservices.transports.tcp import TCPTransport
    from tests.endpoints.ends import server_of

    @message_pattern("echo")
    async def echo(data: Any) -> Any:
        return data

    @message_pattern("slow")
    async def slow(data: Any) -> Any:
        await asyncio.sleep(0.05)
        return data

    @message_pattern("sync")
    def sync(data: Any) -> Any:
        time.sleep(0.005)
        return data

    @message_pattern("hang")
    async def hang(data: Any) -> None:
        await asyncio.Event().wait()

    port, host = [*sys.argv[1:], "127.0.0.1"][:2]
    transport = TCPTransport(host=host, port=int(port))
    server = server_of(transport, echo, slow, sync, hang, concurrency=2000)
    return run(Microservice([server]), lambda _: print("ready", flush=True))  # noqa: T201


if __name__ == "__main__":
    django.setup()
    sys.exit(main())
