"""Clients that watch over a host: ``python -m tests.faults.watching HOST OURS OTHER``.

It prints "ready" when all are connected, and then, as each finds out that the host has
vanished, who it is and after how many seconds since a line came on stdin.
"""

import asyncio
import os
import sys
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


async def main(host: str, ours: int, other: int) -> None:
    """Connect, and wait."""
    from django_microservices import MicroserviceError
    from tests.endpoints.ends import client_of

    def client(port: int) -> Any:
        from django_microservices.transports.tcp import TCPTransport

        return client_of(TCPTransport(host=host, port=port))

    idle, unheard, waiting = client(ours), client(other), client(other)
    lost: dict[str, asyncio.Event] = {}
    for name, one in (("idle", idle), ("keep-alive", unheard), ("unsent", waiting)):
        lost[name] = asyncio.Event()
        one.on("disconnect", lost[name].set)
        await one.aconnect()
    await idle.asend("echo", 1)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    begun = time.monotonic()

    async def watch(name: str) -> None:
        await lost[name].wait()
        say(f"{name} {time.monotonic() - begun:.3f}")

    async def call() -> None:
        try:
            await idle.asend("echo", 2, timeout=1)
        except MicroserviceError as error:
            say(f"{type(error).__name__} {time.monotonic() - begun:.3f}")

    await waiting.aemit("into the void", "x" * 1000)
    await asyncio.gather(call(), *(watch(name) for name in lost))


def say(text: str) -> None:
    """Tell the test."""
    print(text, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    django.setup()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
