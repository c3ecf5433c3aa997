"""Finds a broker: the first of ``urls`` that lets us in."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...exceptions import MicroserviceError, NotConnected, TransportRefused
from ..sockets import unreachable
from ..tls import ClientContext
from .address import Address
from .connection import Connection, Manners

if TYPE_CHECKING:
    from ..base import Changed


class Route(NamedTuple):
    """How a broker is reached: options of the transport; ``timeout`` is in seconds.

    ``tls`` counts for addresses of ``amqps``, whose certificates are to name
    ``server_name`` if it is given; ``more`` are arguments of asyncio's
    ``create_connection``.
    """

    addresses: Sequence[Address]
    manners: Manners
    timeout: float
    tls: ClientContext
    server_name: str | None
    more: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<Route to {', '.join(map(str, self.addresses))}>"


async def connect(route: Route, changed: "Changed") -> Connection:
    """Return an open connection to the first broker that lets us in.

    Raises :class:`TransportRefused` where none ever will, else :class:`NotConnected`.
    """
    errors: list[MicroserviceError] = []
    for address in route.addresses:
        try:
            return await _connect(route, address, changed)
        except MicroserviceError as error:
            errors.append(error)
    refused = all(isinstance(error, TransportRefused) for error in errors)
    kind = TransportRefused if refused else NotConnected
    raise kind("; ".join(map(str, errors)))


async def _connect(route: Route, address: Address, changed: "Changed") -> Connection:
    loop = asyncio.get_running_loop()
    connection = Connection(route.manners, address, loop, changed)
    context = route.tls.current() if address.tls else None
    name = route.server_name or address.host
    try:
        async with asyncio.timeout(route.timeout):
            await loop.create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=context,
                server_hostname=name if context else None,
                **route.more,
            )
            await connection.opened
    except BaseException as error:
        connection.abort(NotConnected("given up"))
        raise _reason(error, address) from error
    return connection


def _reason(error: BaseException, address: Address) -> BaseException:
    """Say in our own errors why there is no connection."""
    if isinstance(error, TransportRefused):
        return TransportRefused(f"{address}: {error}")
    if isinstance(error, MicroserviceError):
        return NotConnected(f"{address}: {error}")
    if isinstance(error, OSError):
        return NotConnected(unreachable(str(address), error))
    return error
