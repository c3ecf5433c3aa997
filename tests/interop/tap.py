"""A listener on the wire: what two peers really say to each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.brokers.ports import broker_port

PATIENCE = 10.0


class Tap:
    """Passes bytes on between clients and one server, and keeps them.

    ``asked`` and ``answered`` hold what either side said; ``left`` is set once a
    client has ended its side, ``heard`` is notified whenever somebody said something.
    """

    def __init__(self, port: int) -> None:
        self.asked = bytearray()
        self.answered = bytearray()
        self.left = asyncio.Event()
        self.heard = asyncio.Condition()
        self.port = broker_port()
        self._target = port
        self._running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def said(self, words: bytes) -> None:
        """Return once either side has said ``words``."""
        async with asyncio.timeout(PATIENCE), self.heard:
            await self.heard.wait_for(
                lambda: words in self.asked or words in self.answered
            )

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass one client's bytes on until both sides have ended."""
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = writer
        with suppress(OSError):  # the two peers see it for themselves
            await self._connect(reader, writer)
        writer.close()
        del self._running[task]

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self._target
        )
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, self.asked),
                self._pass(far_reader, writer, self.answered),
            )
        finally:
            far_writer.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kept: bytearray,
    ) -> None:
        try:
            while data := await _read(reader):
                await self._hear(kept, data)
                writer.write(data)
                await writer.drain()
        finally:
            if kept is self.asked:
                self.left.set()
            with suppress(OSError):
                writer.write_eof()

    async def _hear(self, kept: bytearray, data: bytes) -> None:
        async with self.heard:
            kept += data
            self.heard.notify_all()

    async def end(self) -> None:
        """Hang up on everybody."""
        running = dict(self._running)
        for writer in running.values():
            writer.close()
        await asyncio.gather(*running)


async def _read(reader: asyncio.StreamReader) -> bytes:
    with suppress(OSError):
        return await reader.read(65536)
    return b""


@asynccontextmanager
async def tap_on(port: int) -> AsyncIterator[Tap]:
    """Stand between the server on ``port`` and clients, on a port of its own."""
    tap = Tap(port)
    server = await asyncio.start_server(tap.accept, "127.0.0.1", tap.port)
    try:
        yield tap
    finally:
        server.close()
        await tap.end()
