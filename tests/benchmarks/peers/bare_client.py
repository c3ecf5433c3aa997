"""The bare client. Argument: the server's URL."""

import sys

import uvloop

from .bare import connect, port_of
from .commands import obey


async def _main(port: int) -> None:
    await obey(await connect(port))


uvloop.run(_main(port_of(sys.argv[1])))
