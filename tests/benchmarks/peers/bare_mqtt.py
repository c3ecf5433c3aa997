"""The floor over MQTT 3.1.1: its packets by hand, all of QoS 0."""

import asyncio
import os

from .bare_brokered import Receive, Writer, run, where

REPLY = "/reply"
CONNACK, PUBLISH, SUBACK = 2, 3, 9


def size(number: int) -> bytes:
    """Write a length as MQTT does."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | 128 if number else digit)
        if not number:
            return bytes(out)


def text(value: str) -> bytes:
    """Write a text with its length."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


class MQTT(Writer):
    """The one connection."""

    confirms = False

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._rest = b""
        self._answers: asyncio.Queue[int] = asyncio.Queue()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Introduce ourselves."""
        super().connection_made(transport)
        body = text("MQTT") + b"\x04\x02\x00\x00" + text(f"bare{os.getpid()}")
        self.write(b"\x10" + size(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        """Hand on every whole packet, then write what that brought."""
        data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 2:
            mark, length, shift = start + 1, 0, 0
            while mark < end:
                digit = data[mark]
                mark += 1
                length |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            stop = mark + length
            if stop > end:
                break
            kind = data[start] >> 4
            if kind == PUBLISH:
                begin = mark + 2 + (data[mark] << 8 | data[mark + 1])
                self._receive(None, data[begin:stop], data[mark + 2 : begin])
            else:
                self._answers.put_nowait(kind)
            start = stop
        self._rest = data[start:]

    async def expect(self, kind: int) -> None:
        """Wait for an answer of the broker's."""
        while await self._answers.get() != kind:
            pass

    async def serve(self, channels: list[str]) -> None:
        """Subscribe."""
        body = b"\x00\x01" + b"".join(text(channel) + b"\x00" for channel in channels)
        self.write(b"\x82" + size(len(body)) + body)
        await self.expect(SUBACK)

    async def await_replies(self, channels: list[str]) -> None:
        """Subscribe to where the replies come."""
        await self.serve([channel + REPLY for channel in channels])

    def publish(self, channel: str, body: bytes, id_: str = "") -> None:
        """Send."""
        topic = text(channel)
        self.write(b"\x30" + size(len(topic) + len(body)), topic, body)

    def reply(self, to: bytes, body: bytes) -> None:
        """Answer on the topic's reply topic."""
        self.publish(to.decode() + REPLY, body)


async def connect(url: str, receive: Receive) -> MQTT:
    """Open the connection."""
    loop = asyncio.get_running_loop()
    _, mqtt = await loop.create_connection(lambda: MQTT(receive), *where(url))
    await mqtt.expect(CONNACK)
    return mqtt


run(connect)
