"""A NATS server that says what a test wants, and a clock that it may wait for."""

import asyncio
import contextlib
import json
from types import TracebackType
from typing import Any, Self

INFO = {"server_id": "fake", "version": "2.15.1", "headers": True, "max_payload": 1024}


class FakeServer:
    """Says INFO, answers PING while ``lively``, and keeps what it heard.

    ``info`` is merged into what it says of itself, ``None`` says nothing at all;
    ``refusal`` is said instead of the first PONG, after which it hangs up; with
    ``hangs_up`` it does so at once.
    """

    def __init__(
        self, port: int, info: dict[str, Any] | None = INFO, refusal: str = ""
    ) -> None:
        self.port = port
        self.info = None if info is None else INFO | info
        self.refusal = refusal
        self.lively = True
        self.hangs_up = False
        self.heard = b""
        self.arrived = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        """Listen."""
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every connection."""
        self.listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def introduction(self) -> dict[str, Any]:
        """What the last client said of itself."""
        said = self.heard.rpartition(b"CONNECT ")[2].partition(b"\r\n")[0]
        found: dict[str, Any] = json.loads(said)
        return found

    def say(self, data: bytes) -> None:
        """Say something to everybody."""
        for writer in self.writers:
            writer.write(data)

    async def hears(self, words: bytes) -> None:
        """Return when these words came."""
        async with asyncio.timeout(10):
            while words not in self.heard:
                self.arrived.clear()
                await self.arrived.wait()

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self.writers.append(writer)
        self._tasks.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.info is not None:
            writer.write(b"INFO %b \r\n" % json.dumps(self.info).encode())
        if self.hangs_up:
            writer.close()
            return
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.heard += line
                self.arrived.set()
                if line != b"PING\r\n" or not self.lively:
                    continue
                if self.refusal:
                    writer.write(f"-ERR '{self.refusal}'\r\n".encode())
                    writer.close()
                else:
                    writer.write(b"PONG\r\n")
