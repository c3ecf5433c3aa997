"""A service on a broker: ``... broker_served KIND OPTIONS NAME FILE``.

Each number that its event or its request brings is a line more in the file; an event's
before the broker is told. KIND is the transport's name, OPTIONS its options as JSON,
and NAME the beginning of the patterns.
"""

import asyncio
import json
import os
import sys

from django_microservices import event_pattern, message_pattern, transports

from .serving import serve

IN_FLIGHT = 50
"""Messages that it holds at the most."""


def main(kind: str, options: str, name: str, file: str) -> int:
    """Serve until a signal comes."""
    seen = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @event_pattern(f"{name}.noted")
    async def noted(data: int) -> None:
        await asyncio.sleep(0.02)
        os.write(seen, b"%d\n" % data)

    @message_pattern(f"{name}.slow", qos=0)
    async def slow(data: int) -> int:
        os.write(seen, b"%d\n" % data)
        await asyncio.sleep(0.5)
        return data

    transport = getattr(transports, kind)(**json.loads(options))
    return serve(transport, noted, slow, concurrency=IN_FLIGHT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
