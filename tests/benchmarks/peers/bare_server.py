"""The bare server. Argument: its URL. It ends with stdin."""

import asyncio
import sys

import uvloop

from .bare import ServerFrames, port_of


async def _main(port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)  # nothing is ever sent: readable is its end
    async with await loop.create_server(ServerFrames, "127.0.0.1", port):
        await ended.wait()


uvloop.run(_main(port_of(sys.argv[1])))
