"""The floor over RabbitMQ: pamqp to open, and the hot frames by hand.

The URL's fragment is the queue; its query ``acks`` asks for acknowledgements in
batches, confirms and persistent messages.
"""

import asyncio
import struct
from collections import deque
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame, header
from pamqp.header import ProtocolHeader

from .bare_brokered import Receive, Writer, run, where

CHANNEL = 1
PUBLISH, DELIVER, ACK = b"\x00\x3c\x00\x28", b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x50"
METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"
REPLY_TO = "amq.rabbitmq.reply-to"
PREFETCH = 100
_HEAD = struct.Struct(">BHI")


def framed(kind: int, payload: bytes) -> bytes:
    """Write a frame."""
    return _HEAD.pack(kind, CHANNEL, len(payload)) + payload + END


def short(value: bytes) -> bytes:
    """Write a short text."""
    return bytes((len(value),)) + value


class RabbitMQ(Writer):
    """The one connection with one channel."""

    def __init__(self, receive: Receive, queue: str, *, confirms: bool) -> None:
        super().__init__()
        self.confirms = confirms
        self._receive = receive
        self._queue = queue
        self._mode = b"\x02" if confirms else b"\x01"
        self._rest = b""
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._properties: Any = None
        self._tag = b""
        self._acks = False
        self._unconfirmed: deque[asyncio.Future[None]] = deque()
        self._confirmed = 0

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand on every whole message, then write what that brought."""
        data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 8:
            kind, _, length = _HEAD.unpack_from(data, start)
            stop = start + 8 + length
            if stop > end:
                break
            self._frame(kind, data[start + 7 : stop - 1], data[start:stop])
            start = stop
        self._rest = data[start:]
        if self._acks and self._tag:
            self.write(framed(METHOD, ACK + self._tag + b"\x01"))
            self._tag = b""

    def _frame(self, kind: int, payload: bytes, whole: bytes) -> None:
        if kind == HEADER:
            self._properties = header.ContentHeader()
            self._properties.unmarshal(payload)
        elif kind == BODY:
            properties = self._properties.properties
            to = (properties.reply_to, properties.correlation_id)
            self._receive(properties.correlation_id, payload, to)
        elif payload.startswith(DELIVER):
            at = 5 + payload[4]
            self._tag = payload[at : at + 8]
        elif kind == METHOD and payload.startswith(ACK):
            self._confirm(int.from_bytes(payload[4:12], "big"))
        elif kind == METHOD:
            self._answers.put_nowait(frame.unmarshal(whole)[2])

    def _confirm(self, tag: int) -> None:
        while self._confirmed < tag:
            self._confirmed += 1
            self._unconfirmed.popleft().set_result(None)

    # --- out ---

    async def ask(self, method: Any, channel: int = CHANNEL) -> Any:
        """Send a method, and give its answer."""
        self.write(frame.marshal(method, channel))
        return await self._answers.get()

    async def open(self, user: str, password: str) -> None:
        """Shake hands."""
        self.write(ProtocolHeader().marshal())
        await self._answers.get()
        response = f"\0{user}\0{password}"
        tune = await self.ask(
            commands.Connection.StartOk({}, "PLAIN", response, "en_US"), 0
        )
        self.write(
            frame.marshal(
                commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0
            )
        )
        await self.ask(commands.Connection.Open("/"), 0)
        await self.ask(commands.Channel.Open())
        if self.confirms:
            await self.ask(commands.Confirm.Select())

    async def serve(self, channels: list[str]) -> None:
        """Consume the queue."""
        await self.ask(commands.Queue.Declare(queue=self._queue, durable=True))
        if self.confirms:
            self._acks = True
            await self.ask(commands.Basic.Qos(0, PREFETCH))
        await self.ask(
            commands.Basic.Consume(queue=self._queue, no_ack=not self.confirms)
        )

    async def await_replies(self, channels: list[str]) -> None:
        """Consume direct replies."""
        await self.ask(commands.Basic.Consume(queue=REPLY_TO, no_ack=True))

    def publish(self, channel: str, body: bytes, id_: str = "") -> Any:
        """Send to the queue; the future is the confirm."""
        properties = b"\x10\x00" + self._mode
        if id_:
            properties = b"\x16\x00" + self._mode
            properties += short(id_.encode()) + short(REPLY_TO.encode())
        self._publish(self._queue.encode(), properties, body)
        if not self.confirms:
            return None
        future = self._loop.create_future()
        self._unconfirmed.append(future)
        return None if id_ else future

    def reply(self, to: Any, body: bytes) -> None:
        """Answer directly."""
        properties = b"\x14\x00\x01" + short(to[1].encode())
        self._publish(to[0].encode(), properties, body)
        if self.confirms:
            self._unconfirmed.append(self._loop.create_future())

    def _publish(self, routing_key: bytes, properties: bytes, body: bytes) -> None:
        head = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + properties
        self.write(
            framed(METHOD, PUBLISH + b"\x00\x00\x00" + short(routing_key) + b"\x00"),
            framed(HEADER, head),
            framed(BODY, body),
        )


async def connect(url: str, receive: Receive) -> RabbitMQ:
    """Open the connection."""
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    _, rabbitmq = await loop.create_connection(
        lambda: RabbitMQ(receive, parts.fragment, confirms=parts.query == "acks"),
        *where(url),
    )
    await rabbitmq.open(
        unquote(parts.username or "guest"), unquote(parts.password or "guest")
    )
    return rabbitmq


run(connect)
