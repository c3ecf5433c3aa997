"""The end that asks: what a client knows, and what its verbs make of a call."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ..concurrency.once import Once
from ..concurrency.portal import is_throwaway, portal, refuse_inside_loop
from ..exceptions import NotConnected
from ..wire.context import REQUEST_ID_HEADER, current_request_id
from ..wire.contracts import Event, Request
from ..wire.patterns import Pattern
from ..wire.seconds import seconds_of
from ..wire.status import StatusStream
from ..wire.text import shown
from .arguments import DEFAULT, headers_of, options_of, refuse_unreadable
from .calls import Call, StreamCall
from .config import ClientConfig
from .connection import Connection
from .connections import Connections
from .exchange import Exchange
from .layers import Layers
from .listeners import Listeners
from .verbs import Verbs

_CONTRACTS = (Request, Event)


class Client(Verbs):
    """One entry of ``MICROSERVICES["CLIENTS"]``: ``clients["NAME"]``.

    It connects at the first call, is shared by the whole process, and may stand at
    module level. Sync verbs are for views, tasks and commands; inside a running event
    loop they raise ``SynchronousOnlyOperation`` and name their ``a`` twin.

    All verbs raise :class:`NotConnected`, :class:`ConnectionLost`,
    :class:`MessageTimeout`, :class:`TransportRefused`, :class:`MessageTooLarge` and
    :class:`EncodingError`; those that wait for an answer also :class:`RemoteError`,
    :class:`NoHandler` and :class:`InvalidReply`, streams :class:`StreamOverflow`.
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

    # --- calls ---

    def _call(  # noqa: PLR0917 - by place, since it is hot
        self,
        kind: type[Call],
        id_: Any,
        pattern: Any,
        data: Any,
        returns: Any,
        timeout: Any,
        headers: Mapping[str, str] | None,
        options: Mapping[str, Any] | None,
    ) -> Call:
        if isinstance(pattern, _CONTRACTS):
            if returns is None:
                returns = getattr(pattern, "returns", None)
            pattern = pattern.pattern
        else:
            pattern = Pattern.of(pattern)
        if pattern.is_reserved:
            route = shown(pattern.route)
            message = f"{route!r}: patterns that begin with 'dm-' are reserved."
            raise ValueError(message)
        if headers is not None:
            headers = headers_of(headers)
        request_id = current_request_id()
        if request_id is not None:
            headers = {REQUEST_ID_HEADER: request_id, **(headers or {})}
        if timeout is DEFAULT:
            timeout = self._timeout
        elif timeout is not None:
            timeout = seconds_of(timeout, "timeout")
        if options is not None:
            options = options_of(options, self._transport)
        if returns is not None:
            refuse_unreadable(returns)
        return kind(
            pattern,
            data,
            id_,
            headers,
            timeout,
            options=options,
            stream=kind is StreamCall,
            client=self.name,
            returns=returns,
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
        self._transport = config.transport
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
