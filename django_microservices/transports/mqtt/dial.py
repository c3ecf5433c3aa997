"""Opens a connection, and says why where that fails."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from ...exceptions import NotConnected, TransportRefused

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
    except TimeoutError:
        message = f"{address} did not answer in time"
        raise NotConnected(message) from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or error
        message = f"{address} refused by TLS: {reason}"
        raise NotConnected(message) from error
    except (TransportRefused, NotConnected) as error:
        message = f"{address}: {error}"
        raise type(error)(message) from None
    except OSError as error:
        message = f"{address}: {_reason(error)}"
        raise NotConnected(message) from error


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


def _reason(error: OSError) -> str:
    """Say it as the system does: asyncio has sentences of its own."""
    if error.errno is not None and error.errno > 0:  # a resolver's are negative
        return os.strerror(error.errno)
    return error.strerror or str(error) or "the connection ended at once"
