"""What stands on both sides of a transport in its tests: a service, and raw peers."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp.intake import Intake
from django_microservices.transports.tcp.link import Link
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status

RESET = struct.pack("ii", 1, 0)
SOON = 10.0  # seconds: a bound on what takes milliseconds


async def eventually(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0)


class Delivery:
    """One message that the service got."""

    def __init__(self, message: Message, respond: Callable[[Reply], Any]) -> None:
        self.message = message
        self.respond = respond
        self.is_stream = False
        self.takes_place = True
        self.outcome: str | None = None
        self.reason = ""
        self.delay: float | None = None
        self.cancelled = asyncio.Event()
        self._callback: Callable[[Any], None] | None = None

    @property
    def data(self) -> Any:
        """The payload."""
        return (
            UNSET
            if self.message.data is UNSET
            else json.loads(bytes(self.message.data))
        )

    def when_done(self, callback: Callable[[Any], None]) -> None:
        """Call back, at once if it is done."""
        if self.outcome is None:
            self._callback = callback
        else:
            callback(self)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.cancelled.set()
        self.end("retry")

    def answer(self, data: bytes | None = None, **parts: Any) -> None:
        """Answer, with the payload itself if nothing is given, and end."""
        if self.outcome is None:
            if self.message.id is not UNSET:
                echo = None if self.message.data is UNSET else bytes(self.message.data)
                parts = parts or {"data": echo if data is None else data}
                self.say(**parts)
            self.end("ack")

    def say(self, data: bytes | None = None, **parts: Any) -> None:
        """Send one packet, and let who reads slowly be."""
        self.respond(Reply(self.message.id, data, **parts))

    def end(
        self, outcome: str = "ack", reason: str = "", delay: float | None = None
    ) -> None:
        """End."""
        if self.outcome is None:
            self.outcome, self.reason, self.delay = outcome, reason, delay
            if self._callback is not None:
                self._callback(self)


class Service:
    """Stands in for a Server: remembers what came, and lets a test answer it.

    ``answer`` is called with each delivery, in the tick after it came, or within the
    very call with ``at_once``.
    """

    def __init__(
        self,
        answer: Callable[[Delivery], object] | None = Delivery.answer,
        *,
        at_once: bool = False,
    ) -> None:
        self.answer = answer
        self.at_once = at_once
        self.deliveries: list[Delivery] = []
        self._came = asyncio.Event()

    def __call__(self, message: Message, respond: Callable[[Reply], Any]) -> Delivery:
        """Take a message."""
        delivery = Delivery(message, respond)
        self.deliveries.append(delivery)
        self._came.set()
        if self.answer is not None and self.at_once:
            self.answer(delivery)
        elif self.answer is not None:
            asyncio.get_running_loop().call_soon(self.answer, delivery)
        return delivery

    async def came(self, count: int) -> list[Delivery]:
        """Wait until so many have come in all."""
        async with asyncio.timeout(SOON):
            while len(self.deliveries) < count:
                self._came.clear()
                await self._came.wait()
        return self.deliveries


class Serve(Protocol):
    """How a test opens a server."""

    def __call__(
        self, service: Any = None, *, limit: int = ..., **options: Any
    ) -> "Serving":
        """Serve with these options."""


class Serving:
    """An open server, and those who talk to it."""

    def __init__(
        self, port: int, service: Any = None, *, limit: int = 100, **options: Any
    ) -> None:
        self.port = port
        self.service = service or Service()
        self.transport = TCPTransport(port=port, **options)
        self.limit = limit
        self.intake: Intake
        self._peers: list[Peer] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        self._block = self.transport.serve(
            [], self.service, lambda _: None, limit=self.limit
        )
        self.intake = await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and let go of every peer."""
        for peer in self._peers:
            peer.close()
        await self._block.__aexit__(kind, error, trace)

    async def peer(self, **options: Any) -> "Peer":
        """Connect a raw peer."""
        peer = await Peer.connect(self.port, **options)
        self._peers.append(peer)
        return peer

    def link(
        self, receive: Callable[[Reply], None] | None = None, **options: Any
    ) -> Any:
        """Connect a client of ours."""
        return linked(self.port, receive, **options)


class Calls(list[Reply]):
    """The replies that a client of ours got."""

    def __init__(self) -> None:
        super().__init__()
        self.link: Link
        self.statuses: list[Status] = []
        self._came = asyncio.Event()

    def __call__(self, reply: Reply) -> None:
        """Keep a reply."""
        self.append(reply)
        self._came.set()

    def send(
        self, pattern: Any, data: bytes = b"1", id_: Any = "7", **more: Any
    ) -> Any:
        """Publish a request, or with ``UNSET`` an event."""
        return self.link.publish(Message(Pattern.of(pattern), data, id_, **more))

    async def came(self, count: int) -> "Calls":
        """Wait until so many replies have come in all."""
        async with asyncio.timeout(SOON):
            while len(self) < count:
                self._came.clear()
                await self._came.wait()
        return self


@asynccontextmanager
async def linked(
    port: int, receive: Callable[[Reply], None] | None = None, **options: Any
) -> AsyncIterator[Calls]:
    """Connect a client of ours to a port."""
    calls = Calls()
    transport = TCPTransport(port=port, **options)
    async with transport.connect(receive or calls, calls.statuses.append) as link:
        calls.link = link
        yield calls


class Peer:
    """A peer with nothing but a socket."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._framing = JsonSocket(10**9)
        self._texts: deque[bytes] = deque()

    @classmethod
    async def connect(cls, port: int, *, receive: int = 0, **options: Any) -> "Peer":
        """Connect; ``receive`` is the size of the socket's buffer for what comes in."""
        sock = socket.socket()
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, **options))

    def send(self, *packets: Any) -> None:
        """Write packets: encoded texts, or what is to be encoded."""
        texts = (
            packet if isinstance(packet, bytes) else json.dumps(packet).encode()
            for packet in packets
        )
        self.writer.write(b"".join(map(frame, texts)))

    def request(self, data: Any = 1, id_: Any = "7", **more: Any) -> None:
        """Write a request."""
        self.send({"pattern": "echo", "data": data, "id": id_, **more})

    async def read(self) -> Any:
        """Read one packet."""
        async with asyncio.timeout(SOON):
            while not self._texts:
                data = await self.reader.read(64 * 1024)
                if not data:
                    raise asyncio.IncompleteReadError(b"", None)
                self._texts.extend(self._framing.receive(data))
            return json.loads(self._texts.popleft())

    async def ended(self) -> bytes:
        """Wait for the other side's end; return what came before it."""
        async with asyncio.timeout(SOON):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    @property
    def address(self) -> str:
        """The peer's own address, as the server sees it."""
        host, port = self.writer.get_extra_info("sockname")
        return f"{host}:{port}"

    def close(self) -> None:
        """Be gone, with a reset: a mere end could be that of our side only."""
        sock = self.writer.get_extra_info("socket")
        if not self.writer.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()
