"""The connections of one client: one for each long-lived loop."""

import asyncio
from contextlib import suppress

from ..concurrency.inbox import Inbox
from ..concurrency.portal import is_throwaway, portal
from ..transports.base import Transport
from ..wire.status import StatusStream
from .connection import Connection
from .listeners import Listeners

Loop = asyncio.AbstractEventLoop


class Connections:
    """Which connection serves a caller.

    A long-lived loop (a Microservice's, an ASGI server's, ``asyncio.run``'s) has one of
    its own. Sync callers, and those on the loops that ``async_to_sync`` makes for one
    call, share the one on the portal's loop.
    """

    def __init__(self, name: str, listeners: Listeners) -> None:
        self.name = name
        self.latest: Connection | None = None
        self._listeners = listeners
        self._by_loop: dict[Loop, Connection] = {}
        self._statuses: dict[Loop | None, StatusStream] = {}

    def __len__(self) -> int:
        return len(self._by_loop)

    def on(self, transport: Transport, loop: Loop) -> Connection:
        """Return the one connection of a long-lived loop, made at its first call."""
        connection = self._by_loop.get(loop)
        if connection is None:
            self._forget_closed_loops()
            connection = self.fresh(transport, loop, self._status_on(loop))
            connection = self._by_loop.setdefault(loop, connection)
        self.latest = connection
        return connection

    def fresh(
        self, transport: Transport, loop: Loop, status: StatusStream
    ) -> Connection:
        """Return a connection that nobody else uses."""
        return Connection(
            transport, loop, name=self.name, listeners=self._listeners, status=status
        )

    def _forget_closed_loops(self) -> None:
        for loop in tuple(self._by_loop):
            if loop.is_closed():
                self._by_loop.pop(loop, None)
                self._statuses.pop(loop, None)

    def present(self, loop: Loop | None) -> Connection | None:
        """Return the connection that a caller on ``loop`` uses, if it is there."""
        if loop is not None and not is_throwaway(loop):
            return self._by_loop.get(loop)
        for known, connection in tuple(self._by_loop.items()):
            if portal.is_loop(known):
                return connection
        return None

    def status(self, loop: Loop | None) -> StatusStream:
        """Return the status of the connection that a caller on ``loop`` uses."""
        if loop is None or not is_throwaway(loop):
            return self._status_on(loop)
        copy = StatusStream()  # its waiters and the portal would be on two threads
        copy.change(self._status_on(None).value)
        return copy

    def _status_on(self, loop: Loop | None) -> StatusStream:
        if loop is not None and portal.is_loop(loop):
            loop = None
        try:
            return self._statuses[loop]
        except KeyError:
            return self._statuses.setdefault(loop, StatusStream())

    async def close(self, loop: Loop) -> None:
        """Close the connection of a loop, from that loop."""
        connection = self._by_loop.pop(loop, None)
        if connection is not None:
            self.latest = None
            await connection.close()

    def drop(self) -> None:
        """Forget everything without closing it: it is another process's."""
        self._by_loop = {}
        self._statuses = {}
        self.latest = None

    def end(self) -> None:
        """Close soon what is open, each connection on its own loop."""
        connections, self._by_loop, self.latest = self._by_loop, {}, None
        for loop, connection in connections.items():
            with suppress(RuntimeError):  # the loop is closed, and so is the connection
                Inbox(loop).put(connection.end)
