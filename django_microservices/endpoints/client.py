"""The end that asks: verbs for sync and async callers over one transport."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any, NamedTuple, TypeVar, overload

from django.db import transaction

from ..concurrency.adapt import to_async, to_sync
from ..concurrency.handover import Inbox, new_waiter
from ..concurrency.once import Once
from ..concurrency.portal import is_throwaway, portal, refuse_inside_loop
from ..dispatch.payloads import PayloadError, decoder_for
from ..exceptions import InvalidMessage, InvalidReply, NotConnected
from ..transports.base import Transport
from ..wire.codecs import decode, encode
from ..wire.context import REQUEST_ID_HEADER, current_request_id
from ..wire.contracts import AnyPattern, Event, Request
from ..wire.messages import UNSET, new_id
from ..wire.patterns import Pattern
from ..wire.status import StatusStream
from .calls import Call, StreamCall
from .connection import Connection
from .layers import Layers
from .listeners import Listeners

In = TypeVar("In")
Out = TypeVar("Out")

DEFAULT_TIMEOUT = 5.0
_CONTRACTS = (Request, Event)


class ClientConfig(NamedTuple):
    """What settings say of a client; ``timeout`` in seconds, ``None`` for ever."""

    transport: Transport
    timeout: float | None = DEFAULT_TIMEOUT
    middleware: tuple[Any, ...] = ()
    serve: Callable[[], Any] | None = None
    """Serves the memory transport's other side on the running loop."""


class _Default:
    """A timeout that was not given."""

    def __repr__(self) -> str:
        return "the client's TIMEOUT"


DEFAULT: Any = _Default()


class Client:
    """One entry of ``MICROSERVICES["CLIENTS"]``: ``clients["NAME"]``.

    It connects at the first call, is shared by the whole process, and may stand at
    module level. Sync verbs are for views, tasks and commands; inside a running event
    loop they raise ``SynchronousOnlyOperation`` and name their ``a`` twin.

    All verbs raise :class:`NotConnected` and :class:`ConnectionLost`; those that wait
    for an answer also :class:`RemoteError`, :class:`NoHandler`,
    :class:`MessageTimeout` and, with a type asked for, :class:`InvalidReply`.
    """

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name = name
        self._load = load
        self._listeners = Listeners()
        self.reset()
        portal.on_drop(self.reset)

    def reset(self) -> None:
        """Forget settings and connections without closing them (after a fork)."""
        self._once = Once(self._load, self._take)
        self._config: ClientConfig | None = None
        self._layers: Layers | None = None
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._latest: Connection | None = None
        self._statuses: dict[asyncio.AbstractEventLoop | None, StatusStream] = {}

    def forget(self) -> None:
        """Begin anew with the settings as they are now; close soon what is open."""
        connections, statuses = self._connections, self._statuses
        self.reset()
        self._statuses = statuses
        for loop, connection in connections.items():
            with suppress(RuntimeError):  # the loop is closed, and so is the connection
                Inbox(loop).put(connection.end)

    # --- verbs that wait for an answer ---

    @overload
    def send(
        self,
        pattern: Request[In, Out],
        data: In,
        *,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: type[Out],
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Any: ...
    def send(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> Any:
        """Send a request and return its answer; of a stream, the last item."""
        refuse_inside_loop("send", "asend")
        config = self._config or self._configure()
        call = self._call(
            config, pattern, data, returns, timeout, headers, options, new_id()
        )
        layers = self._layers
        return self._send(call) if layers is None else layers.send(call)

    @overload
    async def asend(
        self,
        pattern: Request[In, Out],
        data: In,
        *,
        timeout: float | None = ...,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: type[Out],
        timeout: float | None = ...,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Any: ...
    async def asend(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> Any:
        """Send a request and return its answer; of a stream, the last item."""
        config = self._config or await self._aconfigure()
        call = self._call(
            config, pattern, data, returns, timeout, headers, options, new_id()
        )
        if self._layers is not None:
            return await self._layers.asend(call)
        connection = self._latest
        if connection is None or connection.loop is not asyncio.get_running_loop():
            return await self._asend(call)
        # The hot path: what _asend() does, without its frames.
        call.data = UNSET if data is UNSET else encode(data)
        waiter = call.waiter = connection.loop.create_future()
        connection.begin(call)
        try:
            answer = await waiter
        finally:
            if not call.done:
                call.close(answered=False)
        return value_of(answer, call.returns)

    @overload
    def stream(
        self,
        pattern: Request[In, Out],
        data: In,
        *,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: type[Out],
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> Iterator[Any]: ...
    def stream(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> Iterator[Any]:
        """Send a request and iterate its answers; ``timeout`` bounds each wait.

        Closing the iterator cancels the stream on the other side.
        """
        refuse_inside_loop("stream", "astream")
        config = self._config or self._configure()
        call = self._stream_call(
            config, pattern, data, returns, timeout, headers, options
        )
        layers = self._layers
        return self._stream(call) if layers is None else layers.stream(call)

    @overload
    def astream(
        self,
        pattern: Request[In, Out],
        data: In,
        *,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: type[Out],
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> AsyncGenerator[Any, None]: ...
    async def astream(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> AsyncGenerator[Any, None]:
        """Send a request and iterate its answers; ``timeout`` bounds each wait."""
        config = self._config or await self._aconfigure()
        call = self._stream_call(
            config, pattern, data, returns, timeout, headers, options
        )
        layers = self._layers
        items = self._astream(call) if layers is None else await layers.astream(call)
        async with aclosing(items):
            async for item in items:
                yield item

    # --- verbs that do not wait ---

    @overload
    def emit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        *,
        on_commit: bool = ...,
        using: str | None = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> None: ...
    @overload
    def emit(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        on_commit: bool = ...,
        using: str | None = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> None: ...
    def emit(
        self,
        pattern: Any,
        data: Any = None,
        *,
        on_commit: bool = False,
        using: str | None = None,
        timeout: float | None = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> None:
        """Send an event; return once the wire has it.

        ``on_commit=True`` sends it after the transaction of database ``using``; for
        events that must not be lost there is the outbox.
        """
        refuse_inside_loop("emit", "aemit")
        config = self._config or self._configure()
        call = self._call(config, pattern, data, None, timeout, headers, options)
        if on_commit:
            transaction.on_commit(lambda: self._emit_now(call), using=using)
        else:
            self._emit_now(call)

    @overload
    async def aemit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        *,
        on_commit: bool = ...,
        using: str | None = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> None: ...
    @overload
    async def aemit(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        on_commit: bool = ...,
        using: str | None = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = ...,
        options: Any = ...,
    ) -> None: ...
    async def aemit(
        self,
        pattern: Any,
        data: Any = None,
        *,
        on_commit: bool = False,
        using: str | None = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> None:
        """Send an event; return once the wire has it."""
        config = self._config or await self._aconfigure()
        call = self._call(config, pattern, data, None, timeout, headers, options)
        if on_commit:
            await to_async(transaction.on_commit)(
                lambda: self._emit_now(call), using=using
            )
            return
        layers = self._layers
        await (self._aemit(call) if layers is None else layers.asend(call))

    # --- the connection ---

    def connect(self) -> None:
        """Connect now rather than at the first call."""
        refuse_inside_loop("connect", "aconnect")
        self._configure()
        portal.run(self.aconnect)  # the portal's loop is the running one there

    async def aconnect(self) -> None:
        """Connect now rather than at the first call."""
        await self._aconfigure()
        await self._anywhere(Connection.connected, self._probe())

    def _probe(self) -> Call:
        call = Call(Pattern.of("connect"), None)
        call.client = self.name
        call.timeout = DEFAULT_TIMEOUT if self._config is None else self._config.timeout
        return call

    def close(self) -> None:
        """Close the connection that sync callers share."""
        refuse_inside_loop("close", "aclose")
        if self._serving(None) is not None:
            portal.run(self.aclose)

    async def aclose(self) -> None:
        """Close the connection of the running loop."""
        loop = asyncio.get_running_loop()
        if is_throwaway(loop) and self._serving(loop) is not None:
            await portal.arun(self.aclose)
        connection = self._connections.pop(loop, None)
        if connection is not None:
            self._latest = None
            await connection.close()

    @property
    def status(self) -> StatusStream:
        """The status now, and (``async for``) its changes.

        It is that of the running loop's connection, or else of the one that sync
        callers share.
        """
        loop = _running_loop()
        if loop is None or not is_throwaway(loop):
            return self._status_on(loop)
        copy = StatusStream()  # its waiters and the portal would be on two threads
        copy.change(self._status_on(None).value)
        return copy

    def _status_on(self, loop: asyncio.AbstractEventLoop | None) -> StatusStream:
        if loop is not None and portal.is_loop(loop):
            loop = None
        try:
            return self._statuses[loop]
        except KeyError:
            return self._statuses.setdefault(loop, StatusStream())

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        """Call ``callback`` at "connect", "disconnect" or "error" (with the error).

        It runs on the connection's event loop and must return quickly.
        """
        self._listeners.add(event, callback)

    def unwrap(self) -> Any:
        """Return the driver's object; raise :class:`NotConnected` without one."""
        connection = self._serving(_running_loop())
        if connection is None or connection.session is None:
            message = f"Client {self.name!r} is not connected."
            raise NotConnected(message)
        return connection.session.link.driver

    def _serving(self, loop: asyncio.AbstractEventLoop | None) -> Connection | None:
        """Return the connection that a caller on ``loop`` uses, if it is there."""
        if loop is not None and not is_throwaway(loop):
            return self._connections.get(loop)
        for known, connection in tuple(self._connections.items()):
            if portal.is_loop(known):
                return connection
        return None

    def _connection(
        self, config: ClientConfig, loop: asyncio.AbstractEventLoop
    ) -> Connection:
        """Return the one connection of a long-lived loop."""
        connection = self._connections.get(loop)
        if connection is None:
            self._forget_closed_loops()
            status = self._status_on(loop)
            connection = self._new_connection(config, loop, status)
            connection = self._connections.setdefault(loop, connection)
        self._latest = connection
        return connection

    def _forget_closed_loops(self) -> None:
        for loop in tuple(self._connections):
            if loop.is_closed():
                self._connections.pop(loop, None)
                self._statuses.pop(loop, None)

    def _new_connection(
        self,
        config: ClientConfig,
        loop: asyncio.AbstractEventLoop,
        status: StatusStream,
    ) -> Connection:
        return Connection(
            config.transport,
            loop,
            name=self.name,
            listeners=self._listeners,
            status=status,
        )

    # --- settings ---

    def _configure(self) -> ClientConfig:
        return self._once.get()

    async def _aconfigure(self) -> ClientConfig:
        return await self._once.aget()

    def _take(self, config: ClientConfig) -> ClientConfig:
        if config.middleware:
            self._layers = Layers(self, config.middleware)
        self._config = config
        return config

    # --- calls ---

    def _call(
        self,
        config: ClientConfig,
        pattern: Any,
        data: Any,
        returns: Any,
        timeout: Any,
        headers: Mapping[str, str] | None,
        options: Any,
        id_: Any = UNSET,
        kind: type[Call] = Call,
    ) -> Any:
        if isinstance(pattern, _CONTRACTS):
            if returns is None:
                returns = getattr(pattern, "returns", None)
            pattern = pattern.pattern
        else:
            pattern = Pattern.of(pattern)
        if pattern.is_reserved:
            message = f"{pattern.route!r}: patterns that begin with 'dm-' are reserved."
            raise ValueError(message)
        request_id = current_request_id()
        if request_id is not None:
            headers = {REQUEST_ID_HEADER: request_id, **(headers or {})}
        elif headers is not None:
            headers = dict(headers)
        if timeout is DEFAULT:
            timeout = config.timeout
        return kind(
            pattern, data, id_, headers, timeout, None, None, options, kind is StreamCall,
            self.name, returns,
        )  # fmt: skip

    def _stream_call(self, *parts: Any) -> StreamCall:
        call: StreamCall = self._call(*parts, id_=new_id(), kind=StreamCall)
        return call

    def run(self, call: Call) -> Any:
        """Do what the verb asked, for a sync caller; inside all client middleware."""
        if isinstance(call, StreamCall):
            return self._stream(call)
        return self._emit(call) if call.is_event else self._send(call)

    async def arun(self, call: Call) -> Any:
        """Do what the verb asked, for an async caller; inside all middleware."""
        if isinstance(call, StreamCall):
            return self._astream(call)
        return await (self._aemit(call) if call.is_event else self._asend(call))

    async def _asend(self, call: Call) -> Any:
        call.data = payload_of(call.data)
        return value_of(await self._anywhere(ask, call), call.returns)

    async def _aemit(self, call: Call) -> None:
        call.data = payload_of(call.data)
        connection = self._latest
        if connection is None or connection.loop is not asyncio.get_running_loop():
            await self._anywhere(Connection.emit, call)
        else:
            await connection.emit(call)

    async def _anywhere(
        self, verb: Callable[[Connection, Call], Awaitable[Any]], call: Call
    ) -> Any:
        """Run ``verb`` where the connection lives that serves this caller."""
        config = self._config
        assert config is not None
        loop = asyncio.get_running_loop()
        if config.transport.in_process:
            async with self._in_process(config) as connection:
                return await verb(connection, call)
        if is_throwaway(loop):
            return await portal.arun(verb, self._connection(config, portal.loop), call)
        return await verb(self._connection(config, loop), call)

    @asynccontextmanager
    async def _in_process(self, config: ClientConfig) -> AsyncIterator[Connection]:
        """Serve and connect for one call, on the caller's own loop."""
        async with config.serve() if config.serve else nullcontext():
            loop = asyncio.get_running_loop()
            connection = self._new_connection(config, loop, StatusStream())
            try:
                yield connection
            finally:
                await connection.close()

    def _send(self, call: Call) -> Any:
        config = self._config
        assert config is not None
        call.data = payload_of(call.data)
        if config.transport.in_process:
            return value_of(to_sync(self._anywhere)(ask, call), call.returns)
        waiter = call.waiter = new_waiter()
        portal.call_soon(self._connection(config, portal.loop).send, call)
        try:
            if not waiter.wait(call.timeout):
                raise call.timed_out()
        except BaseException:
            portal.call_soon(call.abandon)
            raise
        return value_of(waiter.result(), call.returns)

    def _emit_now(self, call: Call) -> None:
        layers = self._layers
        if layers is None:
            self._emit(call)
        else:
            layers.send(call)

    def _emit(self, call: Call) -> None:
        config = self._config
        assert config is not None
        call.data = payload_of(call.data)
        if config.transport.in_process:
            to_sync(self._anywhere)(Connection.emit, call)
        else:
            connection = self._connection(config, portal.loop)
            portal.run(connection.emit, call)

    def _stream(self, call: StreamCall) -> Iterator[Any]:
        config = self._config
        assert config is not None
        call.data = payload_of(call.data)
        if config.transport.in_process:
            found, call.error = to_sync(self._collect)(call)
            yield from found
            call.raise_error()
            return
        connection = self._connection(config, portal.loop)
        try:
            portal.run(connection.open_stream, call)
            while items := portal.run(call.take):
                for item in items:
                    yield value_of(item, call.returns)
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

    async def _astream(self, call: StreamCall) -> AsyncGenerator[Any, None]:
        call.data = payload_of(call.data)
        async with aclosing(self._items(call)) as items:
            async for item in items:
                yield item

    async def _items(self, call: StreamCall) -> AsyncGenerator[Any, None]:
        config = self._config
        assert config is not None
        loop = asyncio.get_running_loop()
        if config.transport.in_process:
            async with self._in_process(config) as connection:
                async for item in _taken(connection, call, _here, _now):
                    yield item
        elif is_throwaway(loop):
            connection = self._connection(config, portal.loop)
            run, soon = portal.arun, portal.call_soon
            async for item in _taken(connection, call, run, soon):
                yield item
        else:
            connection = self._connection(config, loop)
            async for item in _taken(connection, call, _here, _now):
                yield item


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
                yield value_of(item, call.returns)
    finally:
        soon(connection.close_stream, call)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def payload_of(data: Any) -> Any:
    """Encode what is sent; ``UNSET``, JavaScript's undefined, is no payload at all."""
    return UNSET if data is UNSET else encode(data)


def value_of(data: Any, returns: Any) -> Any:
    """Decode an answer, to the type asked for; raise :class:`InvalidReply`.

    An answer without a value is ``UNSET``, or ``None`` where the type allows it.
    """
    if data is UNSET:
        if returns is None:
            return UNSET
        data = b"null"
    try:
        return decode(data) if returns is None else decoder_for(returns)(data)
    except (InvalidMessage, PayloadError) as error:
        raise InvalidReply(str(error)) from error
