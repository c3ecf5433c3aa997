"""The connections of one half of a wire, which are opened and lost together."""

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost
from .connection import Connection
from .protocol import Received

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from .address import Address, Place


def _unheard(*_: Any) -> None:
    """Tell nobody."""


class Lines:
    """Connections to one Redis; ``lost()`` is called once when one of them is lost.

    ``closed`` ends with the reason.
    """

    def __init__(
        self, address: "Address", lost: Callable[[], None] = lambda: None
    ) -> None:
        self.address = address
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BaseException | None] = self.loop.create_future()
        self.place: Place
        self._lost = lost
        self._connections: list[Connection] = []

    def add(self, received: Received = _unheard) -> Connection:
        """Make a connection, which :meth:`open` opens."""
        connection = Connection(self.loop, self._ended, received)
        self._connections.append(connection)
        return connection

    async def open(self) -> None:
        """Open them all; raises as :meth:`Address.open` does."""
        self.place = await self.address.open(*self._connections)

    @cached_property
    def driver(self) -> "Redis":
        """A client of redis-py for the same server, made when it is first wanted."""
        return self.address.client(self.place)

    @property
    def are_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.closed.done()

    def end(self, reason: BaseException) -> None:
        """Take note of the end; only the first one counts."""
        if not self.closed.done():
            self.closed.set_result(reason)
            self._lost()

    def _ended(self, reason: str) -> None:
        self.end(ConnectionLost(reason))

    async def close(self) -> None:
        """Close them, each once Redis has taken what was sent on it."""
        for connection in self._connections:
            if not self.are_lost:
                await connection.close()
            connection.abort("closed")
        if "driver" in self.__dict__:
            await self.driver.aclose()
