"""Which servers there are, and how one connects to the first that answers."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import MicroserviceError, NotConnected, TransportRefused
from ...wire.secrets import masked
from ..sockets import address_text, unreachable
from ..tls import ClientContext, TLSOptions
from .connection import Connection
from .credentials import Credentials
from .protocol import connect

PORT = 4222


class NATSTLSOptions(TLSOptions, total=False):
    """``tls``: as ``tls_options`` of TCP.

    With ``handshake_first`` TLS begins before the server says who it is, as it must be
    told to do as well.
    """

    handshake_first: bool


class Servers:
    """What options say of the servers and of the connection to one of them."""

    def __init__(
        self,
        servers: Sequence[str],
        credentials: Credentials,
        *,
        tls: NATSTLSOptions | None,
        name: str | None,
        no_echo: bool,
        no_randomize: bool,
        ignore_cluster_updates: bool,
        connect_timeout: float,
        ping_interval: float,
        max_ping_out: int,
        driver_options: Mapping[str, Any] | None,
    ) -> None:
        self.servers = [_split(server) for server in servers]
        self.credentials = credentials
        self.tls = tls
        self.name = name
        self.no_echo = no_echo
        self.no_randomize = no_randomize
        self.ignore_cluster_updates = ignore_cluster_updates
        self.connect_timeout = connect_timeout
        self.ping_interval = ping_interval
        self.max_ping_out = max_ping_out
        self.driver_options = dict(driver_options or {})
        self._client_tls = ClientContext(tls or {}, "tls")
        self._others: list[SplitResult] = []

    @property
    def plain_hosts(self) -> list[str]:
        """The hosts of servers that are not asked for TLS."""
        plain = (s for s in self.servers if self.tls is None and s.scheme != "tls")
        return [server.hostname or "" for server in plain]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """Have a connection inside the block.

        Raises :class:`NotConnected` with what each server said, and
        :class:`TransportRefused` for credentials and TLS files that cannot be used.
        """
        connection = await self._connect()
        try:
            connection.watch()
            yield connection
        finally:
            if not self.ignore_cluster_updates:
                self._others = self._others_of(connection.info)
            await connection.close()

    def _others_of(self, info: Mapping[str, Any]) -> list[SplitResult]:
        """Return those of a cluster that it named last and that options do not.

        They are ``connect_urls`` of its INFO, ``host:port`` each; who may use one
        server of a cluster may use all of them.
        """
        known = {address_of(server) for server in self.servers}
        user, at, _ = self.servers[0].netloc.rpartition("@")
        others, named = [], info.get("connect_urls")
        for address in named if isinstance(named, list) else ():
            with suppress(ImproperlyConfigured):
                server = _split(f"{self.servers[0].scheme}://{user}{at}{address}")
                if address_of(server) not in known:
                    others.append(server)
        return others

    async def _connect(self) -> Connection:
        servers, reasons = [*self.servers, *self._others], []
        if not self.no_randomize:
            servers = random.sample(servers, len(servers))
        for server in servers:
            try:
                return await self._connect_to(server)
            except NotConnected as error:
                reasons.append(str(error))
        raise NotConnected("; ".join(reasons))

    async def _connect_to(self, server: SplitResult) -> Connection:
        connection = Connection(
            asyncio.get_running_loop(),
            address_of(server),
            ping_interval=self.ping_interval,
            max_ping_out=self.max_ping_out,
        )
        try:
            async with asyncio.timeout(self.connect_timeout):
                await self._open(connection, server)
        except BaseException as error:
            connection.abort("closed")
            if isinstance(error, OSError) and not isinstance(error, MicroserviceError):
                message = unreachable(connection.address, error)
                raise NotConnected(message) from error
            raise
        return connection

    async def _open(self, connection: Connection, server: SplitResult) -> None:
        context = self._context(server)
        first = bool((self.tls or {}).get("handshake_first"))
        await connection.loop.create_connection(
            lambda: connection,
            server.hostname or "",
            server.port or PORT,
            ssl=context if first else None,
            server_hostname=self._server_name(server) if context and first else None,
        )
        info = await connection.greeted
        if info is None:
            raise _failure(connection)
        if not first:
            await self._secure(connection, server, context)
        connection.write(connect(self._introduction(info, server)))
        if not await connection.ping():
            raise _failure(connection)

    def _context(self, server: SplitResult) -> ssl.SSLContext | None:
        """Return what TLS needs, where options ask for TLS."""
        if self.tls is None and server.scheme != "tls":
            return None
        return self._client_tls.current()

    def _server_name(self, server: SplitResult) -> str:
        return (self.tls or {}).get("server_name") or server.hostname or ""

    async def _secure(
        self,
        connection: Connection,
        server: SplitResult,
        context: ssl.SSLContext | None,
    ) -> None:
        """Begin TLS where the server or the options want it; never do without."""
        wanted = connection.info.get("tls_required")
        if context is None and not wanted:
            return
        if not (wanted or connection.info.get("tls_available")):
            message = f"{connection.address}: the server has no TLS"
            raise NotConnected(message)
        transport = await connection.loop.start_tls(
            connection.transport,
            connection,
            context or self._client_tls.current(),
            server_hostname=self._server_name(server),
        )
        connection.use(transport or connection.transport)  # none where it was lost

    def _introduction(
        self, info: Mapping[str, Any], server: SplitResult
    ) -> dict[str, Any]:
        if not info.get("headers"):
            message = f"{address_of(server)}: NATS before 2.2 knows no headers."
            raise TransportRefused(message)
        return {
            "lang": "python",
            "name": self.name,
            "protocol": 1,
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "echo": not self.no_echo,
            **self.driver_options,
            **self.credentials.answer(info, server),
        }


def _failure(connection: Connection) -> Exception:
    """Say why a connection ended before it began."""
    reason = connection.reason or ""
    message = f"{connection.address}: {reason}"
    refused = reason.lower().startswith(("authorization", "user authentication"))
    return (TransportRefused if refused else NotConnected)(message)


def address_of(server: SplitResult) -> str:
    """Name a server, without its user."""
    return address_text((server.hostname or "", server.port or PORT))


def _split(server: str) -> SplitResult:
    """Read ``nats://user:password@host:port``, of which only the host must be."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    try:
        fits = parts.scheme in {"nats", "tls"} and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        message = (
            f"servers: {masked(server)} is not of the form 'nats://host:port' or "
            "'tls://host:port'."
        )
        raise ImproperlyConfigured(message)
    return parts
