"""The other side in the tests of MQTT: another client, and a broker's part."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from django_microservices.transports.mqtt.packets import (
    MQTT_3,
    MQTT_5,
    Ack,
    Connect,
    Kind,
    Packet,
    Publish,
    Subscribe,
    ack_packet,
    acknowledged_publish,
    connect_packet,
    packet,
    subscribe_packet,
)
from django_microservices.transports.mqtt.properties import (
    NONE,
    Properties,
    property_bytes,
    read_length,
    text_bytes,
)
from django_microservices.transports.mqtt.reader import PacketReader
from django_microservices.wire.messages import new_id

SOON = 10.0  # seconds: a bound on what takes milliseconds
LARGE = 16 * 1024 * 1024


class Peer:
    """A client that knows nothing of Nest, and does what it is told.

    ``messages`` are those that came, each acknowledged.
    """

    def __init__(self, url: str, version: int = MQTT_3, **connect: Any) -> None:
        parts = urlsplit(url)
        self.where = (str(parts.hostname), int(parts.port or 0))
        self.version = version
        connect = {"client_id": f"peer-{new_id()}", "clean": True, **connect}
        self.connect = Connect(version, keepalive=60, **connect)
        self.messages: list[Publish] = []
        self._reader = PacketReader(version, LARGE)
        self._last_id = 0
        self._read: list[Packet] = []
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect."""
        self.stream, self.writer = await asyncio.open_connection(*self.where)
        self.writer.write(connect_packet(self.connect))
        self._task = asyncio.ensure_future(self._listen())
        await self.until(lambda: self._read)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Be gone without a word."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        await self._task

    async def _listen(self) -> None:
        with suppress(OSError):
            while data := await self.stream.read(65_536):
                for one in self._reader.receive(data):
                    if isinstance(one, Publish):
                        self._take(one)
                    else:
                        self._read.append(one)
                self._came.set()

    def _take(self, publish: Publish) -> None:
        self.messages.append(publish)
        if publish.qos == 1:
            self.writer.write(ack_packet(Kind.PUBACK, publish.packet_id))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return once something that came makes a condition true."""
        async with asyncio.timeout(SOON):
            while not condition():
                self._came.clear()
                await self._came.wait()

    async def answered(self, kind: Kind, packet_id: int) -> Ack:
        """Wait for an answer."""
        found: list[Ack] = []

        def look() -> bool:
            found.extend(
                one
                for one in self._read
                if isinstance(one, Ack)
                and (one.kind, one.packet_id) == (kind, packet_id)
            )
            return bool(found)

        await self.until(look)
        return found[0]

    async def subscribe(self, *filters: str, qos: int = 0) -> None:
        """Subscribe, and return when the broker has it."""
        for one in filters:
            self._last_id += 1
            self.writer.write(
                subscribe_packet(self.version, Subscribe(one, qos), self._last_id)
            )
            await self.answered(Kind.SUBACK, self._last_id)

    async def publish(
        self,
        topic: str,
        body: Any,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties = NONE,
    ) -> None:
        """Publish bytes, or what is to be encoded; return when the broker has it."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        written = property_bytes(properties) if self.version == MQTT_5 else b""
        if not qos:
            head = text_bytes(topic)
            self.writer.write(packet(0x30 | retain, head, written, payload))
            return
        self._last_id += 1
        self.writer.write(
            acknowledged_publish(
                qos << 1 | retain, text_bytes(topic), self._last_id, written, payload
            )
        )
        if qos == 1:
            await self.answered(Kind.PUBACK, self._last_id)
            return
        await self.answered(Kind.PUBREC, self._last_id)
        self.writer.write(ack_packet(Kind.PUBREL, self._last_id))
        await self.answered(Kind.PUBCOMP, self._last_id)

    async def came(self, count: int) -> list[Publish]:
        """Wait until so many messages have come in all."""
        await self.until(lambda: len(self.messages) >= count)
        return self.messages

    async def bodies(self, count: int) -> list[Any]:
        """Wait until so many have come; return what they say."""
        return [json.loads(one.payload) for one in await self.came(count)]


class Heard(NamedTuple):
    """A packet of a client's, as the broker's part reads it."""

    kind: Kind
    first: int
    body: bytes

    @property
    def packet_id(self) -> bytes:
        """The identifier of a SUBSCRIBE, UNSUBSCRIBE, or of an answer."""
        return self.body[:2]


class Broker:
    """A broker's part, one packet at a time.

    ``play(client)`` is run for each client; its :meth:`Client.hear` gives the packets.
    """

    def __init__(self, port: int, play: Callable[["Client"], Awaitable[None]]) -> None:
        self.port = port
        self.url = f"mqtt://127.0.0.1:{port}"
        self._play = play
        self._clients: dict[asyncio.Task[Any], Client] = {}

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up on everybody."""
        self._server.close()
        clients = dict(self._clients)
        for task, client in clients.items():
            client.writer.transport.abort()
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _accept(
        self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = Client(stream, writer)
        try:
            with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                await self._play(self._clients[task])
        finally:
            writer.close()
            del self._clients[task]


class Client:
    """A client of the broker's part."""

    def __init__(
        self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.stream = stream
        self.writer = writer

    async def hear(self, kind: Kind | None = None) -> Heard:
        """Return the next packet, or the next one of a kind."""
        while True:
            head = await self.stream.readexactly(2)
            while head[-1] > 0x7F:
                head += await self.stream.readexactly(1)
            size, _ = read_length(head, 1, len(head))
            heard = Heard(
                Kind(head[0] >> 4), head[0], await self.stream.readexactly(size)
            )
            if kind in {None, heard.kind}:
                return heard

    def say(self, *packets: bytes) -> None:
        """Send."""
        self.writer.write(b"".join(packets))

    async def greet(self, properties: Properties | None = None, code: int = 0) -> Heard:
        """Take the CONNECT and answer it; with properties, as a broker of MQTT 5."""
        heard = await self.hear(Kind.CONNECT)
        written = b"" if properties is None else property_bytes(properties)
        self.say(packet(0x20, bytes((0, code)), written))
        return heard

    async def take_subscriptions(self, count: int, code: int = 0) -> list[Heard]:
        """Take that many SUBSCRIBEs of 3.1.1, and answer each."""
        heard = [await self.hear(Kind.SUBSCRIBE) for _ in range(count)]
        for one in heard:
            self.say(packet(0x90, one.packet_id, bytes((code,))))
        return heard

    async def stay(self) -> None:
        """Listen, and say nothing more."""
        while True:
            await self.hear()
