"""The floor: Nest's frames by hand on asyncio.Protocol, and nothing that is not needed.

One read, all frames in it, one write. Lengths are counted in bytes, so payloads must be
ASCII; no limits, no errors, no timeouts, no reconnecting.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType


class Request(msgspec.Struct):
    """A request, or without an id an event."""

    pattern: Any
    data: Any
    id: str | UnsetType = UNSET


class Reply(msgspec.Struct):
    """The one packet of a unary answer."""

    response: Any
    isDisposed: bool  # noqa: N815 - Nest's spelling
    id: str


encode = msgspec.json.Encoder().encode
read_request = msgspec.json.Decoder(Request).decode
read_reply = msgspec.json.Decoder(Reply).decode


class Frames(asyncio.Protocol):
    """One connection: cuts what it reads into frames, and joins what it writes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand every whole frame on, then write what that brought."""
        data = self._rest + data
        start = 0
        while (mark := data.find(b"#", start)) > 0:
            end = mark + 1 + int(data[start:mark])
            if end > len(data):
                break
            self.frame_received(data[mark + 1 : end])
            start = end
        self._rest = data[start:]
        self.flush()

    def frame_received(self, body: bytes) -> None:
        """Handle one packet."""
        raise NotImplementedError

    def write(self, packet: msgspec.Struct) -> None:
        """Add a packet to the next write."""
        body = encode(packet)
        self._out.append(b"%d#%b" % (len(body), body))

    def flush(self) -> None:
        """Write."""
        if self._out:
            self.transport.write(b"".join(self._out))
            self._out.clear()


class ServerFrames(Frames):
    """The server's half of a connection."""

    received = 0

    def frame_received(self, body: bytes) -> None:
        """Run the handler, here and now."""
        request = read_request(body)
        if request.id is UNSET:
            ServerFrames.received += 1
            return
        answer = HANDLERS[request.pattern["cmd"]](request.data)
        self.write(Reply(answer, isDisposed=True, id=request.id))


HANDLERS: dict[str, Callable[[Any], Any]] = {
    "sum": sum,
    "echo": lambda data: data,
    "received": lambda _: ServerFrames.received,
}


class ClientFrames(Frames):
    """The client's half: a future for each call, one write for all calls of a tick."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count()
        self._pending: dict[str, Callable[[Any], object]] = {}
        self._full: asyncio.Future[None] | None = None

    def send(self, pattern: Any, data: Any) -> asyncio.Future[Any]:
        """Send a request."""
        future = self._loop.create_future()
        self.call(pattern, data, future.set_result)
        return future

    def call(self, pattern: Any, data: Any, done: Callable[[Any], object]) -> None:
        """Send a request whose answer goes to ``done``."""
        number = str(next(self._ids))
        self._pending[number] = done
        self.write(Request(pattern, data, number))

    async def emit(self, pattern: Any, data: Any) -> None:
        """Emit an event, once there is room."""
        if self._full is not None:
            await self._full
        self.write(Request(pattern, data))

    def write(self, packet: msgspec.Struct) -> None:
        """Write at the end of this tick."""
        if not self._out:
            self._loop.call_soon(self.flush)
        super().write(packet)

    def frame_received(self, body: bytes) -> None:
        """Hand the answer to whom it belongs."""
        reply = read_reply(body)
        self._pending.pop(reply.id)(reply.response)

    def pause_writing(self) -> None:
        """Make emit wait."""
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let emit go on."""
        assert self._full is not None
        self._full.set_result(None)
        self._full = None


async def connect(port: int) -> ClientFrames:
    """Open the client's connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(ClientFrames, "127.0.0.1", port)
    return client


def port_of(url: str) -> int:
    """Return where a server listens."""
    port = urlsplit(url).port
    assert port is not None
    return port
