"""A worker in a process of its own: ``python -m tests.faults.redis_served URL FILE``.

Each event that it handles is a line in the file, written before Redis is told.
"""

import asyncio
import os
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

PATTERN = "noted"
CLAIM_AFTER = 1.0


def main() -> int:
    """Serve until a signal comes."""
    from django_microservices import event_pattern
    from django_microservices.runtime.loop import run
    from django_microservices.runtime.microservice import Microservice
    from django_microservices.transports.redis import RedisStreamsTransport
    from tests.endpoints.ends import server_of

    url, path = sys.argv[1:]
    with Path(path).open("a", buffering=1) as file:

        @event_pattern(PATTERN)
        async def noted(data: int) -> None:
            await asyncio.sleep(0.005)
            file.write(f"{data}\n")

        transport = RedisStreamsTransport(
            url=url, group="workers", claim_after=CLAIM_AFTER
        )
        server = server_of(transport, noted)
        return run(Microservice([server]), lambda _: print("ready", flush=True))  # noqa: T201


if __name__ == "__main__":
    django.setup()
    sys.exit(main())
