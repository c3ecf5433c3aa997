"""A service on RabbitMQ in a process of its own: ``... rabbitmq_served OPTIONS FILE``.

Each number that its event brings is appended to the file.
"""

import asyncio
import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

PREFETCH = 50


def main() -> int:
    """Serve until a signal comes."""
    from django_microservices import event_pattern, message_pattern
    from django_microservices.runtime.loop import run
    from django_microservices.runtime.microservice import Microservice
    from django_microservices.transports import RabbitMQTransport
    from tests.endpoints.ends import server_of

    options, path = json.loads(sys.argv[1]), sys.argv[2]
    seen = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @event_pattern(f"{options['group']}.noted")
    async def noted(data: int) -> None:
        await asyncio.sleep(0.02)
        os.write(seen, b"%d\n" % data)

    @message_pattern(f"{options['group']}.slow")
    async def slow(data: Any) -> Any:
        os.write(seen, b"%d\n" % data)
        await asyncio.sleep(0.5)
        return data

    wire = RabbitMQTransport(**options)
    server = server_of(wire, noted, slow, concurrency=PREFETCH)
    return run(Microservice([server]), lambda _: print("ready", flush=True))  # noqa: T201


if __name__ == "__main__":
    django.setup()
    sys.exit(main())
