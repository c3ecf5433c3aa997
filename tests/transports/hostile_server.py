"""A server in a process of its own, whose memory a test can weigh.

Arguments: the port, and the options of the transport as JSON. It ends with stdin.
"""

import asyncio
import json
import sys
from typing import Any

import django
import uvloop

from django_microservices import message_pattern
from tests.endpoints.ends import serving


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Answer with the payload."""
    return data


async def main(port: int, options: dict[str, Any]) -> None:
    """Serve until stdin ends."""
    from django_microservices.transports import TCPTransport

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with serving(port, echo, transport=TCPTransport(port=port, **options)):
        print(json.dumps({"id": 0}), flush=True)  # noqa: T201 - the driver reads it
        await ended.wait()


if __name__ == "__main__":
    django.setup()
    uvloop.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
