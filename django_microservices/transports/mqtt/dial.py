"""Opens a connection, and says why where that fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from ...exceptions import NotConnected, TransportRefused
from ..sockets import unreachable

if TYPE_CHECKING:
    from .connection import Connection
    from .transport import MQTTTransport


@asynccontextmanager
async def dialled(
    options: "MQTTTransport", connection: "Connection"
) -> AsyncIterator["Connection"]:
    """Have the broker take us inside the block.

    Raises :class:`TransportRefused` where it never will, else :class:`NotConnected`.
    """
    with _told(options.address):
        try:
            async with asyncio.timeout(options.connect_timeout):
                await _open(options, connection)
                await asyncio.shield(connection.greeted)
        except BaseException:
            # No waiting for the end: uvloop tells of none where it was still opening.
            connection.abort("there was no answer")
            raise
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Name the broker, and the reason."""
    try:
        yield
    except (TransportRefused, NotConnected) as error:
        message = f"{address}: {error}"
        raise type(error)(message) from None
    except OSError as error:
        raise NotConnected(unreachable(address, error)) from error


async def _open(options: "MQTTTransport", connection: "Connection") -> None:
    context = None if options.tls is None else options.tls.current()
    name = (options.tls_options or {}).get("server_name") or options.host
    await connection.loop.create_connection(
        lambda: connection,
        options.host,
        options.port,
        ssl=context,
        server_hostname=name if context else None,
    )
