"""Where a Redis is, and how to log in there: from options to open connections."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypedDict
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import (
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ...exceptions import MicroserviceError, NotConnected, TransportRefused
from ...wire.ranges import Port
from ...wire.secrets import masked, without_secrets
from ..sockets import address_text, set_options, unreachable
from ..tls import ClientContext, TLSOptions
from .connection import Connection
from .protocol import ReplyError
from .refusals import passes

SENTINEL_PORT = 26379
_SENTINEL_URL = "+sentinel://"
_FORMS = "redis://, rediss:// (TLS), unix:// or redis+sentinel://host,host/name"


class SentinelHost(TypedDict, total=False):
    """One of ``sentinels`` as ioredis has it."""

    host: str
    port: Port


class Place(NamedTuple):
    """A server that was found: a host and a port, or the path of a Unix socket."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"redis://{address_text(self)}" if self.port else f"unix://{self.host}"


@dataclass(kw_only=True, eq=False, repr=False)
class Address:
    """The options of a Redis, wherever it is: ``url`` says what is not given beside it.

    With ``sentinels`` they are asked, at each connecting, where the master ``name`` is.
    """

    url: str | None = None
    host: str = "127.0.0.1"
    port: int = 6379
    username: str | None = None
    password: str | None = None
    db: int = 0
    tls: TLSOptions | None = None
    sentinels: Sequence[str | SentinelHost] | None = None
    name: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    connection_name: str = "django_microservices"
    connect_timeout: float = 5.0
    keep_alive: float = 3.0
    no_delay: bool = True
    driver_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = ""
        self.parameters = dict(self.driver_options)  # of connections of redis-py
        self.masters = [_pair(one) for one in self.sentinels or ()]
        if self.url is not None:
            self._read_url(self.url)
        if bool(self.masters) != bool(self.name):
            message = "sentinels and name: the one needs the other."
            raise ImproperlyConfigured(message)
        if " " in self.connection_name:
            message = f"connection_name: {self.connection_name!r} has a space."
            raise ValueError(message)

    def _read_url(self, url: str) -> None:
        try:
            if _SENTINEL_URL in url:
                url = self._read_sentinels(url)
            given = dict(parse_url(url))
        except ValueError as error:
            message = f"url: {masked(url)} is none of {_FORMS}: {error}"
            raise ImproperlyConfigured(message) from None
        kind = given.pop("connection_class", None)
        for name in ("host", "port", "db", "path"):
            setattr(self, name, given.pop(name, getattr(self, name)))
        for name in ("username", "password"):
            said = given.pop(name, None)
            setattr(self, name, getattr(self, name) or said)
        self.parameters = {**given, **self.parameters}
        if kind is SSLConnection and self.tls is None:
            self.tls = {}

    def _read_sentinels(self, url: str) -> str:
        """Take the hosts and the master's name out of a URL; return what is left."""
        parts = urlsplit(url.replace(_SENTINEL_URL, "://", 1))
        user, at, hosts = parts.netloc.rpartition("@")
        self.masters = [_pair(host) for host in hosts.split(",")]
        name, _, db = parts.path.removeprefix("/").partition("/")
        self.name = unquote(name)
        return parts._replace(netloc=f"{user}{at}sentinel", path=db).geturl()

    def __str__(self) -> str:
        return f"{self.name} of {self.masters}" if self.name else str(self._place)

    @property
    def _place(self) -> Place:
        return Place(self.path) if self.path else Place(self.host, self.port)

    # --- opening ---

    async def open(self, *connections: Connection) -> Place:
        """Open these connections, all to one server, and log in.

        Raises :class:`TransportRefused` where that can never work, else
        :class:`NotConnected` with the reason.
        """
        try:
            async with asyncio.timeout(self.connect_timeout):
                place = await self._find()
                for connection in connections:
                    await self._open(connection, place)
        except (OSError, RedisError, ReplyError, MicroserviceError) as error:
            _give_up(connections)
            if isinstance(error, TransportRefused):
                raise
            raise NotConnected(_reason(str(self), error)) from error
        except BaseException:
            _give_up(connections)
            raise
        return place

    async def _find(self) -> Place:
        if self.name is None:
            return self._place
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self.masters,
            sentinel_kwargs={
                "username": self.sentinel_username,
                "password": self.sentinel_password,
                "socket_timeout": self.connect_timeout / len(self.masters),
                "retry": Retry(NoBackoff(), 0),  # the end that holds us tries again
                **self.driver_options,
            },
        )
        try:
            return Place(*await sentinel.discover_master(self.name))
        finally:
            for client in sentinel.sentinels:
                await client.aclose()

    async def _open(self, connection: Connection, place: Place) -> None:
        loop, context = connection.loop, self._context()
        if place.port:
            await loop.create_connection(
                lambda: connection,
                place.host,
                place.port,
                ssl=context,
                server_hostname=self._server_name(place) if context else None,
            )
        else:
            await loop.create_unix_connection(lambda: connection, place.host)
        sock = connection.transport.get_extra_info("socket")
        set_options(sock, no_delay=self.no_delay, keep_alive=self.keep_alive)
        await self._greet(connection)

    async def _greet(self, connection: Connection) -> None:
        """Log in, and see that this is the server that was meant."""
        words = [["CLIENT", "SETNAME", self.connection_name], ["HELLO", "2"]]
        if self.db:
            words.insert(0, ["SELECT", str(self.db)])
        if self.password is not None:
            user = [] if self.username is None else [self.username]
            words.insert(0, ["AUTH", *user, self.password])
        *answers, hello = await asyncio.gather(
            *(connection.ask(*each) for each in words), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise self._refusal(answer)
        # Before version 6 there was no HELLO, and nothing that it would tell us.
        told = hello if isinstance(hello, list) else []
        facts = dict(zip(told[::2], told[1::2], strict=True))
        connection.counts_all = facts.get(b"mode") != b"cluster"
        if self.masters and facts.get(b"role", b"master") != b"master":
            message = "it is a replica, whatever the sentinels say"
            raise NotConnected(message)

    def _refusal(self, error: BaseException) -> BaseException:
        if not isinstance(error, ReplyError) or passes(error):
            return error
        # A command that Redis does not know is in its answer, with what it was told.
        text = without_secrets(str(error), {"password": self.password})
        return TransportRefused(f"{self} refuses: {text}")

    # --- TLS ---

    def _server_name(self, place: Place) -> str:
        return (self.tls or {}).get("server_name") or place.host

    @cached_property
    def _client_tls(self) -> ClientContext:
        return ClientContext(self.tls or {}, "tls")

    def _context(self) -> ssl.SSLContext | None:
        """Give the context: of our own options, or of those that redis-py knows."""
        if self.tls is None:
            return None
        given = {k: v for k, v in self.parameters.items() if k.startswith("ssl_")}
        if self.tls or not given:
            return self._client_tls.current()
        given.setdefault("ssl_check_hostname", True)
        try:
            return SSLConnection(**given).ssl_context.get()
        except (OSError, ValueError, RedisError) as error:
            message = f"{self}: TLS cannot be set up: {error}"
            raise TransportRefused(message) from error

    # --- redis-py ---

    def client(self, place: Place) -> Redis:
        """Make a client of redis-py, for what we do not do ourselves."""
        options: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "client_name": self.connection_name,
            **self.parameters,
        }
        if not place.port:
            options |= {"connection_class": UnixDomainSocketConnection}
            options["path"] = place.host
        else:
            options |= place._asdict()
        if place.port and self.tls is not None:
            options |= {"connection_class": _TLSConnection, "context": self._context()}
        return Redis.from_pool(ConnectionPool(**options))


class _TLSConnection(SSLConnection):
    """A connection of redis-py with a context of ours."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def _give_up(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.abort("it was never of use")


def _reason(address: str, error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, MicroserviceError):
        return unreachable(address, error)
    return f"{address}: {str(error) or type(error).__name__}"


def _pair(host: str | SentinelHost) -> tuple[str, int]:
    if not isinstance(host, str):
        return host.get("host", "127.0.0.1"), host.get("port", SENTINEL_PORT)
    try:
        parts = urlsplit(f"//{host}")
        if parts.hostname:
            return parts.hostname, parts.port or SENTINEL_PORT
    except ValueError:
        pass
    message = f"sentinels: {host!r} is not of the form 'host:port'."
    raise ImproperlyConfigured(message)
