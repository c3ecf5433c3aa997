"""A replica of a service: it writes what it hears, until its input ends.

``python -m tests.transports.replica SETTINGS``, where ``SETTINGS`` is the JSON of
``MICROSERVICES``.
"""

import asyncio
import json
import sys

import django
from django.conf import settings

from django_microservices import create_microservice, event_pattern

PATTERN = "groups.noted"
READY = "ready"


@event_pattern(PATTERN)
def noted(data: int) -> None:
    """Write what came."""
    say(str(data))


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until the input ends."""
    microservice = create_microservice()
    await microservice.start()
    say(READY)
    await asyncio.to_thread(sys.stdin.read)
    await microservice.drain()
    await microservice.stop()


if __name__ == "__main__":
    settings.configure(
        MICROSERVICES=json.loads(sys.argv[1]),
        INSTALLED_APPS=["django_microservices"],
        USE_TZ=True,
    )
    django.setup()
    asyncio.run(main())
