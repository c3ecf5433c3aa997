"""The end that asks: verbs for sync and async callers over one transport."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypedDict, TypeVar, Unpack, overload

from django.db import transaction

from ..concurrency.adapt import to_async
from ..concurrency.once import Once
from ..concurrency.portal import is_throwaway, portal, refuse_inside_loop
from ..exceptions import NotConnected
from ..wire.context import REQUEST_ID_HEADER, current_request_id
from ..wire.contracts import AnyPattern, Event, Request
from ..wire.messages import UNSET, new_id
from ..wire.patterns import Pattern
from ..wire.status import StatusStream
from .calls import Call, StreamCall
from .connection import Connection
from .connections import Connections
from .exchange import DEFAULT_TIMEOUT, ClientConfig, Exchange
from .layers import Layers
from .listeners import Listeners

__all__ = ["DEFAULT", "DEFAULT_TIMEOUT", "Client", "ClientConfig"]

In = TypeVar("In")
Out = TypeVar("Out")

_CONTRACTS = (Request, Event)


class _Default:
    """A timeout that was not given."""

    def __repr__(self) -> str:
        return "the client's TIMEOUT"


DEFAULT: Any = _Default()


class Options(TypedDict, total=False):
    """What every verb takes beside the pattern and the data."""

    timeout: float | None
    headers: Mapping[str, str] | None
    options: Any


class EmitOptions(Options, total=False):
    """What the verbs for events take."""

    on_commit: bool
    using: str | None


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
        self._connections = Connections(name, self._listeners)
        self._begin_anew()
        portal.on_drop(self.reset)

    def _begin_anew(self) -> None:
        self._config: ClientConfig | None = None
        self._exchange: Exchange | Layers | None = None
        self._once = Once(self._load, self._take)

    def reset(self) -> None:
        """Forget settings and connections without closing them (after a fork)."""
        self._begin_anew()
        self._connections.drop()

    def forget(self) -> None:
        """Begin anew with the settings as they are now; close soon what is open."""
        self._begin_anew()
        self._connections.end()

    # --- verbs that wait for an answer ---

    @overload
    def send(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
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
        exchange = self._exchange or self._once.get()
        return exchange.run(
            self._call(
                Call, new_id(), pattern, data, returns, timeout, headers, options
            )
        )

    @overload
    async def asend(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> Any: ...
    async def asend(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> Any:
        """Send a request and return its answer; of a stream, the last item."""
        exchange = self._exchange or await self._once.aget()
        return await exchange.arun(
            self._call(
                Call, new_id(), pattern, data, returns, timeout, headers, options
            )
        )

    @overload
    def stream(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
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
        exchange = self._exchange or self._once.get()
        call = self._call(
            StreamCall, new_id(), pattern, data, returns, timeout, headers, options
        )
        items: Iterator[Any] = exchange.run(call)
        return items

    @overload
    def astream(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Any, None]: ...
    async def astream(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> AsyncGenerator[Any, None]:
        """Send a request and iterate its answers; ``timeout`` bounds each wait."""
        exchange = self._exchange or await self._once.aget()
        call = self._call(
            StreamCall, new_id(), pattern, data, returns, timeout, headers, options
        )
        async with aclosing(await exchange.arun(call)) as items:
            async for item in items:
                yield item

    # --- verbs that do not wait ---

    @overload
    def emit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        **options: Unpack[EmitOptions],
    ) -> None: ...
    @overload
    def emit(
        self, pattern: AnyPattern, data: Any = ..., **options: Unpack[EmitOptions]
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
        exchange = self._exchange or self._once.get()
        call = self._call(Call, UNSET, pattern, data, None, timeout, headers, options)
        if on_commit:
            transaction.on_commit(lambda: exchange.run(call), using=using)
        else:
            exchange.run(call)

    @overload
    async def aemit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        **options: Unpack[EmitOptions],
    ) -> None: ...
    @overload
    async def aemit(
        self, pattern: AnyPattern, data: Any = ..., **options: Unpack[EmitOptions]
    ) -> None: ...
    async def aemit(
        self,
        pattern: Any,
        data: Any = None,
        *,
        on_commit: bool = False,
        using: str | None = None,
        timeout: float | None = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Any = None,
    ) -> None:
        """Send an event; return once the wire has it."""
        exchange = self._exchange or await self._once.aget()
        call = self._call(Call, UNSET, pattern, data, None, timeout, headers, options)
        if on_commit:
            later = to_async(transaction.on_commit)
            await later(lambda: exchange.run(call), using=using)
        else:
            await exchange.arun(call)

    def _call(  # noqa: PLR0917 - by place, since it is hot
        self,
        kind: type[Call],
        id_: Any,
        pattern: Any,
        data: Any,
        returns: Any,
        timeout: Any,
        headers: Mapping[str, str] | None,
        options: Any,
    ) -> Call:
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
            timeout = self._timeout
        streams = kind is StreamCall
        name = self.name
        return kind(
            pattern,
            data,
            id_,
            headers,
            timeout,
            None,
            None,
            options,
            streams,
            name,
            returns,
        )

    # --- the connection ---

    def connect(self) -> None:
        """Connect now rather than at the first call."""
        refuse_inside_loop("connect", "aconnect")
        self._once.get()
        portal.run(self.aconnect)  # the portal's loop is the running one there

    async def aconnect(self) -> None:
        """Connect now rather than at the first call."""
        await self._once.aget()
        probe = Call(Pattern.of("connect"), None, client=self.name)
        probe.timeout = self._timeout
        assert self._config is not None
        exchange = Exchange(self._config, self._connections)
        await exchange.anywhere(Connection.connected, probe)

    def close(self) -> None:
        """Close the connection that sync callers share."""
        refuse_inside_loop("close", "aclose")
        if self._connections.present(None) is not None:
            portal.run(self.aclose)

    async def aclose(self) -> None:
        """Close the connection of the running loop."""
        loop = asyncio.get_running_loop()
        if is_throwaway(loop) and self._connections.present(loop) is not None:
            await portal.arun(self.aclose)
        await self._connections.close(loop)

    @property
    def status(self) -> StatusStream:
        """The status now, and (``async for``) its changes.

        It is that of the running loop's connection, or else of the one that sync
        callers share.
        """
        return self._connections.status(_running_loop())

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        """Call ``callback`` at "connect", "disconnect" or "error" (with the error).

        It runs on the connection's event loop and must return quickly.
        """
        self._listeners.add(event, callback)

    def unwrap(self) -> Any:
        """Return the driver's object; raise :class:`NotConnected` without one."""
        connection = self._connections.present(_running_loop())
        if connection is None or connection.session is None:
            message = f"Client {self.name!r} is not connected."
            raise NotConnected(message)
        return connection.session.link.driver

    # --- settings ---

    def _take(self, config: ClientConfig) -> Exchange | Layers:
        exchange = Exchange(config, self._connections)
        self._timeout = config.timeout
        self._config = config
        self._exchange = (
            Layers(exchange, config.middleware) if config.middleware else exchange
        )
        return self._exchange


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
