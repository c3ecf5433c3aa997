"""A broker of AMQP that says what a test tells it to, and keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from pamqp import base, body, commands, frame, header

HEAD = 7
SOON = 10.0
PART = 100_000
TAG = "tag"

START = commands.Connection.Start(0, 9, {}, "PLAIN", "en_US")
ANSWERS: dict[type[base.Frame], base.Frame | None] = {
    commands.Connection.StartOk: commands.Connection.Tune(2047, 131_072, 5),
    commands.Connection.Open: commands.Connection.OpenOk(),
    commands.Connection.Close: commands.Connection.CloseOk(),
    commands.Channel.Open: commands.Channel.OpenOk(),
    commands.Channel.Close: commands.Channel.CloseOk(),
    commands.Confirm.Select: commands.Confirm.SelectOk(),
    commands.Queue.Declare: commands.Queue.DeclareOk("amq.gen-q", 0, 0),
    commands.Queue.Bind: commands.Queue.BindOk(),
    commands.Exchange.Declare: commands.Exchange.DeclareOk(),
    commands.Basic.Qos: commands.Basic.QosOk(),
    commands.Basic.Consume: commands.Basic.ConsumeOk(TAG),
    commands.Basic.Cancel: commands.Basic.CancelOk(TAG),
}


class Client:
    """One connection of a client; ``told`` is what it said, each with its channel."""

    def __init__(self, broker: "ScriptedBroker", writer: asyncio.StreamWriter) -> None:
        self.broker = broker
        self.writer = writer
        self.told: list[tuple[int, Any]] = []
        self.changed = asyncio.Event()
        self.hung_up = False

    def say(self, value: Any, channel: int = 0) -> None:
        """Send a frame."""
        self.writer.write(frame.marshal(value, channel))

    def bring(self, channel: int, method: base.Frame, data: bytes, **more: Any) -> None:
        """Send a message with its method."""
        self.say(method, channel)
        properties = commands.Basic.Properties(**more)
        self.say(header.ContentHeader(0, len(data), properties), channel)
        for start in range(0, len(data), PART):
            self.say(body.ContentBody(data[start : start + PART]), channel)

    def deliver(
        self, data: bytes, *, tag: int = 1, channel: int = 1, **more: Any
    ) -> None:
        """Send a delivery."""
        exchange, key = more.pop("exchange", ""), more.pop("key", "orders")
        method = commands.Basic.Deliver(TAG, tag, False, exchange, key)
        self.bring(channel, method, data, **more)

    def heard(self, kind: type[Any]) -> list[Any]:
        """Return what it said of a kind."""
        return [value for _, value in self.told if isinstance(value, kind)]

    async def hears(self, kind: type[Any], count: int = 1) -> Any:
        """Wait until it said so many of a kind; return the last of them."""
        async with asyncio.timeout(SOON):
            while len(self.heard(kind)) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.heard(kind)[count - 1]

    def keep(self, channel: int, value: Any) -> None:
        """Note what it said, and answer as the script has it."""
        self.told.append((channel, value))
        self.changed.set()
        for kind, answer in self.broker.answers.items():
            if isinstance(value, kind) and answer is not None:
                whole = isinstance(answer, commands.Connection.Close)
                self.say(answer, 0 if whole else channel)


class ScriptedBroker:
    """Listens on a port; ``answers`` may be changed by the test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"amqp://127.0.0.1:{port}"
        self.answers = dict(ANSWERS)
        self.first: bytes | base.Frame | None = START
        self.reading = asyncio.Event()
        self.reading.set()
        self.clients: list[Client] = []
        self._came = asyncio.Event()

    async def client(self, number: int = 0) -> Client:
        """Wait for a client's connection."""
        async with asyncio.timeout(SOON):
            while len(self.clients) <= number:
                self._came.clear()
                await self._came.wait()
        return self.clients[number]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        client = Client(self, writer)
        self.clients.append(client)
        self._came.set()
        try:
            await reader.readexactly(8)
            if isinstance(self.first, bytes):
                writer.write(self.first)
            elif self.first is not None:
                client.say(self.first)
            while True:
                head = await reader.readexactly(HEAD)
                size = frame.frame_parts(head)[2]
                assert size is not None
                whole = head + await reader.readexactly(size + 1)
                _, channel, value = frame.unmarshal(whole)
                client.keep(channel, value)
                await self.reading.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            client.hung_up = True
            client.changed.set()
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen inside the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            self.reading.set()
            server.close()
            for client in self.clients:
                client.writer.transport.abort()
            await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.001)
