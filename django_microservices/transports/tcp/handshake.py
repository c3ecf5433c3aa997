"""The beginning of a TLS connection: counted like all, and logged where it fails."""

import asyncio
import logging
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...wire.text import shown
from ..sockets import address_text
from ..tls import reason_of
from .connection import LINGER
from .peer import ServerConnection

if TYPE_CHECKING:
    from .intake import Intake

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Time for the whole of it."""


class Handshake(asyncio.Protocol):
    """Takes the socket of a plain connection, and agrees on TLS there.

    A listener that does TLS by itself tells nobody whom it fails with, nor that it has
    begun; and uvloop reads whatever a protocol says when it is made, so that
    ``loop.start_tls`` would miss the first bytes.
    """

    def __init__(self, intake: "Intake", context: ssl.SSLContext) -> None:
        self._intake = intake
        self._context = context
        self._sock: socket.socket | None = None
        self._name: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        raw = cast("asyncio.Transport", transport)
        self._name = raw.get_extra_info("peername")
        reason = self._intake.admit(self._name)
        if reason is None:
            reason = self._begin(raw.get_extra_info("socket"))
        if reason is not None:
            self._log(logging.WARNING, reason)
        raw.abort()

    def _begin(self, sock: Any) -> str | None:
        """Go on with a socket of our own; return why there can be none."""
        try:
            self._sock = sock.dup()  # of the class that the loop knows
        except OSError as error:  # there are too many
            self._intake.dismiss(self._name)
            return reason_of(error)
        self._sock.setblocking(False)
        connection = ServerConnection(self._intake)
        connection.name = self._name  # it is counted already
        task = self._intake.loop.create_task(self._agree(connection))
        self._intake.handshakes.add(task)
        task.add_done_callback(partial(self._ended, connection))
        return None

    async def _agree(self, connection: ServerConnection) -> None:
        sock, self._sock = self._sock, None  # it is the transport's now
        assert sock is not None
        try:
            await self._intake.loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=SECONDS,
                ssl_shutdown_timeout=LINGER,
            )
        except OSError as error:
            # A peer that only looks whether the port is open is no fault of anybody.
            looked = isinstance(error, ConnectionResetError)
            self._log(logging.INFO if looked else logging.WARNING, reason_of(error))

    def _ended(self, connection: ServerConnection, task: asyncio.Task[None]) -> None:
        self._intake.handshakes.discard(task)
        if self._sock is not None:  # cancelled before it began
            self._sock.close()
        if not connection.heard:  # it was never made
            self._intake.dismiss(self._name)

    def _log(self, level: int, reason: str) -> None:
        peer = address_text(self._name)
        logger.log(level, "No TLS with %s: %s.", peer, shown(reason))
