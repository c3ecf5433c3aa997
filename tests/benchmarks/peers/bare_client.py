"""The bare client. Argument: the server's port."""

import sys

import uvloop

from .bare import connect
from .commands import obey


async def _main(port: int) -> None:
    await obey(await connect(port))


uvloop.run(_main(int(sys.argv[1])))
