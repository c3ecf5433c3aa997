"""The floor over a broker: Nest's packets by hand, and nothing that is not needed.

``run(open_)`` is the main function of a module that has a wire of its own. Arguments:
"server" or "client", and the broker's URL. As for TCP there are no limits, no errors,
no timeouts and no reconnecting, and the sum is done here and now.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import uvloop
from msgspec import UNSET

from .bare import Reply, Request, encode, read_reply, read_request
from .commands import obey

ROUTES = {name: f'{{"cmd":"{name}"}}' for name in ("sum", "received")}
EVENT = "created"


class Wire(Protocol):
    """An open connection to the broker."""

    confirms: bool

    async def serve(self, channels: list[str]) -> None:
        """Return when messages on these channels really come."""

    async def await_replies(self, channels: list[str]) -> None:
        """Return when the replies to requests on these channels really come."""

    def publish(self, channel: str, body: bytes, id_: str = "") -> Any:
        """Send a request (with an id), or an event; perhaps a future of the confirm."""

    def reply(self, to: Any, body: bytes) -> None:
        """Answer; ``to`` is what came with the request."""


Receive = Callable[[Any, bytes, Any], None]
"""Gets a packet: the id beside it or ``None``, the body, and where to reply."""

Open = Callable[[str, Receive], Awaitable[Wire]]


class Server:
    """Does the sum."""

    wire: Wire

    def __init__(self) -> None:
        self.received = 0

    def receive(self, _: Any, body: bytes, to: Any) -> None:
        """Run the handler, here and now."""
        request = read_request(body)
        if request.id is UNSET:
            self.received += 1
            return
        is_sum = request.pattern["cmd"] == "sum"
        answer = sum(request.data) if is_sum else self.received
        self.wire.reply(to, encode(Reply(answer, isDisposed=True, id=request.id)))


class Client:
    """A future for each call."""

    wire: Wire

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count()
        self._pending: dict[str, asyncio.Future[Any]] = {}

    @property
    def confirms(self) -> bool:
        """Whether events are emitted together, since each is confirmed."""
        return self.wire.confirms

    def receive(self, _: Any, body: bytes, to: Any) -> None:
        """Hand the answer to whom it belongs."""
        reply = read_reply(body)
        self._pending.pop(reply.id).set_result(reply.response)

    def send(self, pattern: Any, data: Any) -> asyncio.Future[Any]:
        """Send a request."""
        number = str(next(self._ids))
        future = self._pending[number] = self._loop.create_future()
        body = encode(Request(pattern, data, number))
        self.wire.publish(ROUTES[pattern["cmd"]], body, number)
        return future

    async def emit(self, pattern: Any, data: Any) -> None:
        """Emit an event."""
        confirmed = self.wire.publish(pattern, encode(Request(pattern, data)))
        if confirmed is not None:
            await confirmed


def run(open_: Open) -> None:
    """Be the server or the client, as the arguments say."""
    role, url = sys.argv[1:]
    uvloop.run(_serve(open_, url) if role == "server" else _call(open_, url))


async def _serve(open_: Open, url: str) -> None:
    server = Server()
    server.wire = await open_(url, server.receive)
    await server.wire.serve([*ROUTES.values(), EVENT])
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    print(json.dumps({"id": 0}), flush=True)
    await ended.wait()


async def _call(open_: Open, url: str) -> None:
    client = Client()
    client.wire = await open_(url, client.receive)
    await client.wire.await_replies([*ROUTES.values()])
    await obey(client)


def where(url: str) -> tuple[str, int]:
    """Return the host and port of a broker."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


class Writer(asyncio.Protocol):
    """A connection that joins what one tick writes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the connection."""
        self.transport = transport

    def write(self, *parts: bytes) -> None:
        """Write at the end of this tick."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out += parts

    def flush(self) -> None:
        """Write."""
        if self._out:
            self.transport.write(b"".join(self._out))
            self._out.clear()
