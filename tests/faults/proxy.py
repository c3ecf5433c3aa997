"""A TCP proxy that misbehaves on command."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST, not FIN


class Pipe:
    """One connection through the proxy."""

    def __init__(
        self, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self.client = client
        self.server = server
        self.replied = 0  # bytes of the server that the client got

    def cut(self, *, reset: bool) -> None:
        """End both sides, with RST or with FIN."""
        for writer in (self.client, self.server):
            if reset:
                sock: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):  # closed already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Forwards ``port`` to ``target``, until told otherwise.

    ``delay`` holds each piece of a reply back for so many seconds; ``cut_after`` ends
    each connection when so many bytes of replies were forwarded, with RST where
    ``reset``; ``is_black`` swallows everything, both ways; ``corrupt`` changes what the
    server sends; ``limit`` is the most connections that are let in.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.delay = 0.0
        self.cut_after: int | None = None
        self.reset = True
        self.is_black = False
        self.corrupt: Callable[[bytes], bytes] = bytes
        self.limit = 10_000
        self.accepted: list[float] = []
        self.pipes: set[Pipe] = set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self.cut(reset=True)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def listen(self) -> None:
        """Accept connections."""
        self._listener = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, backlog=1024
        )

    def refuse(self) -> None:
        """Accept no more connections."""
        if self._listener is not None:
            self._listener.close()

    def cut(self, *, reset: bool) -> None:
        """End every connection."""
        for pipe in tuple(self.pipes):
            pipe.cut(reset=reset)

    def inject(self, data: bytes) -> None:
        """Send every client something that the server never said."""
        for pipe in self.pipes:
            pipe.client.write(data)

    def _accepted(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted.append(asyncio.get_running_loop().time())
        if len(self.pipes) >= self.limit:
            writer.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pipe = Pipe(writer, server)
        self.pipes.add(pipe)
        asks = asyncio.ensure_future(self._ask(reader, pipe))
        try:
            with contextlib.suppress(OSError):
                await self._answer(answers, pipe)
        finally:
            asks.cancel()
            self.pipes.discard(pipe)
            pipe.cut(reset=False)

    async def _ask(self, reader: asyncio.StreamReader, pipe: Pipe) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.is_black:
                    pipe.server.write(data)
        pipe.server.close()

    async def _answer(self, reader: asyncio.StreamReader, pipe: Pipe) -> None:
        while data := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.is_black:
                continue
            data = self.corrupt(data)
            if self.cut_after is not None:
                data = data[: self.cut_after - pipe.replied]
            pipe.client.write(data)
            await pipe.client.drain()
            pipe.replied += len(data)
            if pipe.replied == self.cut_after:
                # Sent, and only then reset: a reset may overtake what was not read.
                pipe.cut(reset=self.reset)
                return
