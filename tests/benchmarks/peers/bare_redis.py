"""The floor over Redis: hiredis' parser, one connection out and one in."""

import asyncio
from typing import Any

import hiredis

from .bare_brokered import Receive, Writer, run, where

REPLY = ".reply"


class Connection(Writer):
    """A connection whose pushes go to ``receive``, and whose answers are dropped."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._reader = hiredis.Reader()
        self._awaited = 0
        self._done: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Hand on every whole message, then write what that brought."""
        self._reader.feed(data)
        while (item := self._reader.gets()) is not False:
            if isinstance(item, list) and item[0] == b"message":
                self._receive(None, item[2], item[1])
            elif self._done is not None and isinstance(item, list):
                self._awaited -= 1
                if not self._awaited:
                    self._done.set_result(None)

    async def subscribe(self, channels: list[str]) -> None:
        """Return when Redis has confirmed."""
        self._awaited, self._done = len(channels), self._loop.create_future()
        words = " ".join(channels)
        self.write(f"SUBSCRIBE {words}\r\n".encode())
        await self._done


class Redis:
    """The two connections."""

    confirms = False

    def __init__(self, out: Connection, in_: Connection) -> None:
        self._out = out
        self._in = in_
        self._heads: dict[Any, bytes] = {}

    async def serve(self, channels: list[str]) -> None:
        """Subscribe."""
        await self._in.subscribe([quoted(channel) for channel in channels])

    async def await_replies(self, channels: list[str]) -> None:
        """Subscribe to where the replies come."""
        await self._in.subscribe([quoted(channel + REPLY) for channel in channels])

    def publish(self, channel: str, body: bytes, id_: str = "") -> None:
        """Send."""
        self._publish(channel.encode(), body)

    def reply(self, to: bytes, body: bytes) -> None:
        """Answer on the channel's reply channel."""
        self._publish(to + REPLY.encode(), body)

    def _publish(self, channel: bytes, body: bytes) -> None:
        head = self._heads.get(channel)
        if head is None:
            size = len(channel)
            head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$" % (size, channel)
            self._heads[channel] = head
        self._out.write(head + b"%d\r\n%b\r\n" % (len(body), body))


def quoted(word: str) -> str:
    """Write a word as Redis' inline commands want it."""
    return '"' + word.replace('"', '\\"') + '"'


async def connect(url: str, receive: Receive) -> Redis:
    """Open both connections."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(receive), *where(url)))[1]
        for _ in range(2)
    ]
    return Redis(*opened)


run(connect)
