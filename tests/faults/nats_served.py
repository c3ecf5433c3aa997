"""A service on NATS in a process of its own: ``... nats_served TRANSPORT URL FILE``.

Each number that its event brings is appended to the file.
"""

import asyncio
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

PATTERN = "noted"
ACK_WAIT = 1.5
"""Seconds after which what a killed server held comes again."""


def main() -> int:
    """Serve until a signal comes."""
    from django_microservices import event_pattern, message_pattern, transports
    from django_microservices.runtime.loop import run
    from django_microservices.runtime.microservice import Microservice
    from tests.endpoints.ends import server_of

    name, url, path = sys.argv[1:]
    seen = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @event_pattern(PATTERN)
    async def noted(data: int) -> None:
        await asyncio.sleep(0.02)
        os.write(seen, b"%d\n" % data)

    @message_pattern("slow")
    async def slow(data: Any) -> Any:
        os.write(seen, b"%d\n" % data)
        await asyncio.sleep(0.5)
        return data

    options = {"ack_wait": ACK_WAIT} if name == "JetStreamTransport" else {}
    transport = getattr(transports, name)(url=url, group="served", **options)
    server = server_of(transport, noted, slow)
    return run(Microservice([server]), lambda _: print("ready", flush=True))  # noqa: T201


if __name__ == "__main__":
    django.setup()
    sys.exit(main())
