"""One socket: bytes out in batches, and a certain end."""

import asyncio
import math
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from ..sockets import is_tcp, set_options
from ..stream import BatchedStream

LINGER = 1.0
TURNS = 4
"""Of the loop, in which most answers are written: they acknowledge what was read."""


class Stream(BatchedStream):
    """What knows nothing of MQTT. ``heard`` says when the broker was."""

    peer = "the broker"
    high_water = 64 * 1024
    most_unread = math.inf  # one that reads nothing answers no PINGREQ

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.heard = 0.0
        self._acknowledge: Callable[[], object] = _nothing

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        super().connection_made(transport)
        self.heard = self.loop.time()
        sock = transport.get_extra_info("socket")
        set_options(sock, no_delay=True)
        self._acknowledge = _acknowledging(sock)

    async def end(self) -> None:
        """Close, and return when that is done; what was written has a moment."""
        self.explain("the connection was closed")
        self.flush()
        self.stop()
        self.transport.close()
        await asyncio.wait((self.closed,), timeout=LINGER)
        self.transport.abort()
        await asyncio.wait((self.closed,), timeout=LINGER)

    # --- in ---

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - read by who speaks
        """Note that the broker lives, and that it waits for an acknowledgement."""
        self.heard = self.loop.time()
        if not self.owed:
            self.owed = TURNS
            self.loop.call_soon(self._acknowledge_soon)

    def _acknowledge_soon(self) -> None:
        """Acknowledge what was read, unless what we write does so meanwhile."""
        if self.lost or not self.owed:
            return
        self.owed -= 1
        if self.owed:
            self.loop.call_soon(self._acknowledge_soon)
        else:
            self._acknowledge()

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.heard = self.loop.time()
        super().resume_reading()


def _nothing() -> None:
    """Do what a system can that has no such option."""


def _acknowledging(sock: Any) -> Callable[[], object]:
    """Return what has the kernel acknowledge at once what was read.

    mosquitto leaves Nagle's algorithm on: of two messages in a row the second one waits
    for the acknowledgement of the first, which the kernel delays by 40 ms. The option
    holds for a moment only, so that it is set again with each read.
    """
    if not (is_tcp(sock) and hasattr(socket, "TCP_QUICKACK")):
        return _nothing
    return partial(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
