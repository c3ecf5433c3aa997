"""The floor over NATS: its text protocol by hand."""

import asyncio
import json

from .bare_brokered import Receive, Writer, run, where

INBOX = "_INBOX.bare"
WITH_REPLY = 5  # words of a MSG line


class NATS(Writer):
    """The one connection."""

    confirms = False

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._rest = b""
        self._pong = self._loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Introduce ourselves."""
        super().connection_made(transport)
        options = {"verbose": False, "pedantic": False, "lang": "bare", "version": "1"}
        self.write(f"CONNECT {json.dumps(options)}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Hand on every whole message, then write what that brought."""
        data = self._rest + data
        start = 0
        while (mark := data.find(b"\r\n", start)) >= 0:
            if data.startswith(b"MSG", start):
                words = data[start:mark].split(b" ")
                begin = mark + 2
                end = begin + int(words[-1])
                if end + 2 > len(data):
                    break
                self._receive(
                    None, data[begin:end], words[3] if len(words) > 4 else b""
                )
                start = end + 2
                continue
            if data.startswith(b"PING", start):
                self.write(b"PONG\r\n")
            elif data.startswith(b"PONG", start):
                self._pong.set_result(None)
            start = mark + 2
        self._rest = data[start:]

    async def serve(self, channels: list[str]) -> None:
        """Subscribe."""
        for number, channel in enumerate(channels, 1):
            self.write(f"SUB {channel} {number}\r\n".encode())
        self.write(b"PING\r\n")
        await self._pong

    async def await_replies(self, channels: list[str]) -> None:
        """Subscribe to one inbox for all."""
        await self.serve([INBOX])

    def publish(self, channel: str, body: bytes, id_: str = "") -> None:
        """Send."""
        reply = f" {INBOX}" if id_ else ""
        head = f"PUB {channel}{reply} {len(body)}\r\n".encode()
        self.write(head, body, b"\r\n")

    def reply(self, to: bytes, body: bytes) -> None:
        """Answer to the inbox."""
        self.write(b"PUB %b %d\r\n%b\r\n" % (to, len(body), body))


async def connect(url: str, receive: Receive) -> NATS:
    """Open the connection."""
    loop = asyncio.get_running_loop()
    _, nats = await loop.create_connection(lambda: NATS(receive), *where(url))
    return nats


run(connect)
