"""What becomes of a call: encoded, sent on the right loop, awaited, decoded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any

from ..concurrency.adapt import to_sync
from ..concurrency.handover import new_waiter
from ..concurrency.portal import is_throwaway, portal
from ..dispatch.payloads import PayloadError, decoder_for
from ..exceptions import EncodingError, InvalidMessage, InvalidReply
from ..wire.codecs import decode, encode
from ..wire.messages import UNSET
from ..wire.status import StatusStream
from .calls import Call, StreamCall
from .config import ClientConfig
from .connection import Connection
from .connections import Connections


class Exchange:
    """Carries calls out, inside all client middleware."""

    def __init__(self, config: ClientConfig, connections: Connections) -> None:
        self.config = config
        self.transport = config.transport
        self.connections = connections

    def run(self, call: Call) -> Any:
        """Do what a sync verb asked: its value, ``None``, or an iterator."""
        call.data = payload_of(call)
        if isinstance(call, StreamCall):
            return self._stream(call)
        return self._emit(call) if call.is_event else self._send(call)

    async def arun(self, call: Call) -> Any:
        """Do what an async verb asked: its value, ``None``, or an async iterator."""
        if call.stream:
            call.data = payload_of(call)
            return self._items(call)
        if call.is_event:
            call.data = payload_of(call)
            return await self.anywhere(Connection.emit, call)
        connection = self.connections.latest
        if connection is None or connection.loop is not asyncio.get_running_loop():
            call.data = payload_of(call)
            return value_of(call, await self.anywhere(ask, call))
        # The hot path: what ask() does, without its frame.
        call.data = payload_of(call)
        waiter = call.waiter = connection.loop.create_future()
        connection.begin(call)
        try:
            answer = await waiter
        finally:
            if not call.done:
                call.close(answered=False)
            call.waiter = None
            del waiter  # it holds the error whose traceback holds this frame
        return value_of(call, answer)

    # --- async callers ---

    async def anywhere(
        self, verb: Callable[[Connection, Call], Awaitable[Any]], call: Call
    ) -> Any:
        """Run ``verb`` where the connection lives that serves this caller."""
        loop = asyncio.get_running_loop()
        if self.transport.in_process:
            async with self._in_process() as connection:
                return await verb(connection, call)
        if is_throwaway(loop):
            return await portal.arun(verb, self._on(portal.loop), call)
        return await verb(self._on(loop), call)

    def _on(self, loop: asyncio.AbstractEventLoop) -> Connection:
        return self.connections.on(self.transport, loop)

    @asynccontextmanager
    async def _in_process(self) -> AsyncIterator[Connection]:
        """Serve and connect for one call, on the caller's own loop."""
        serve = self.config.serve
        async with serve() if serve else nullcontext():
            loop = asyncio.get_running_loop()
            connection = self.connections.fresh(self.transport, loop, StatusStream())
            try:
                yield connection
            finally:
                await connection.close()

    async def _items(self, call: Any) -> AsyncGenerator[Any, None]:
        loop = asyncio.get_running_loop()
        if self.transport.in_process:
            async with (
                self._in_process() as connection,
                aclosing(_taken(connection, call, _here, _now)) as items,
            ):
                async for item in items:
                    yield item
            return
        away = is_throwaway(loop)
        connection = self._on(portal.loop if away else loop)
        run, soon = (portal.arun, portal.call_soon) if away else (_here, _now)
        async with aclosing(_taken(connection, call, run, soon)) as items:
            async for item in items:
                yield item

    # --- sync callers ---

    def _send(self, call: Call) -> Any:
        if self.transport.in_process:
            return value_of(call, to_sync(self.anywhere)(ask, call))
        waiter = call.waiter = new_waiter()
        portal.call_soon(self._on(portal.loop).send, call)
        try:
            if not waiter.wait(call.timeout):
                raise call.timed_out()  # noqa: TRY301 - it is abandoned alike
        except BaseException:
            portal.call_soon(call.abandon)
            raise
        return value_of(call, waiter.result())

    def _emit(self, call: Call) -> None:
        if self.transport.in_process:
            to_sync(self.anywhere)(Connection.emit, call)
        else:
            portal.run(self._on(portal.loop).emit, call)

    def _stream(self, call: StreamCall) -> Iterator[Any]:
        if self.transport.in_process:
            found, call.error = to_sync(self._collect)(call)
            yield from found
            call.raise_error()
            return
        connection = self._on(portal.loop)
        try:
            portal.run(connection.open_stream, call)
            while items := portal.run(call.take):
                for item in items:
                    yield value_of(call, item)
        finally:
            with suppress(RuntimeError):  # the interpreter is exiting
                portal.call_soon(connection.close_stream, call)

    async def _collect(self, call: StreamCall) -> tuple[list[Any], Exception | None]:
        """Return all items of a stream, and the error that came after them."""
        found = []
        try:
            async for item in self._items(call):
                found.append(item)  # noqa: PERF401 - an error keeps those before it
        except Exception as error:  # noqa: BLE001 - raised when the items are read
            return found, error
        return found, None


async def ask(connection: Connection, call: Call) -> Any:
    """Send a request on its connection's own loop and return the raw answer."""
    waiter = call.waiter = connection.loop.create_future()
    connection.begin(call)
    try:
        return await waiter
    finally:
        if not call.done:
            call.close(answered=False)
        call.waiter = None
        del waiter  # it holds the error whose traceback holds this frame


async def _here(verb: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return await verb(*args)


def _now(function: Callable[..., None], *args: Any) -> None:
    function(*args)


async def _taken(
    connection: Connection,
    call: StreamCall,
    run: Callable[..., Awaitable[Any]],
    soon: Callable[..., None],
) -> AsyncGenerator[Any, None]:
    """Yield a stream's values; ``run`` and ``soon`` reach the connection's loop."""
    try:
        await run(connection.open_stream, call)
        while items := await run(call.take):
            for item in items:
                yield value_of(call, item)
    finally:
        soon(connection.close_stream, call)


def payload_of(call: Call) -> Any:
    """Encode what is sent; ``UNSET``, JavaScript's undefined, is no payload at all.

    Raises :class:`EncodingError`.
    """
    data = call.data
    if data is UNSET:
        return UNSET
    try:
        return encode(data)
    except EncodingError as error:
        raise call.explained(error) from error


def as_it_arrives(call: Call) -> Any:
    """Return what is sent as plain Python, whatever becomes of the object itself.

    Raises :class:`EncodingError` for what cannot travel.
    """
    payload = payload_of(call)
    return UNSET if payload is UNSET else decode(payload)


def value_of(call: Call, data: Any) -> Any:
    """Decode an answer, to the type asked for; raise :class:`InvalidReply`.

    An answer without a value is ``UNSET``, or ``None`` where the type allows it.
    """
    returns = call.returns
    if data is UNSET:
        if returns is None:
            return UNSET
        data = b"null"
    try:
        return decode(data) if returns is None else decoder_for(returns)(data)
    except (InvalidMessage, PayloadError) as error:
        raise call.explained(InvalidReply(str(error))) from error
