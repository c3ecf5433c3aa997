"""Where a broker is and who we are there: ``urls``, read as Nest's driver reads them.

Source: https://www.rabbitmq.com/docs/uri-spec and ``connect.js`` of amqplib.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict
from urllib.parse import parse_qs, unquote, urlsplit

from ...wire.ranges import CountOrZero, Port, SecondsOrZero
from ...wire.secrets import masked
from ..sockets import address_text

PLAIN_PORT, TLS_PORT = 5672, 5671
GUEST = "guest"
_SCHEMES = {"amqp": False, "amqps": True}


class URL(TypedDict, total=False):
    """One of ``urls`` in parts, as amqplib takes it; ``heartbeat`` is in seconds."""

    protocol: str
    hostname: str
    port: Port
    username: str
    password: str
    vhost: str
    heartbeat: SecondsOrZero
    frame_max: CountOrZero
    locale: str


class Address(NamedTuple):
    """A broker, and with whom and what one enters."""

    host: str = "localhost"
    port: int = PLAIN_PORT
    tls: bool = False
    username: str = GUEST
    password: str = GUEST
    vhost: str = "/"
    heartbeat: float | None = None
    frame_max: int | None = None
    locale: str = "en_US"
    mechanism: str = "PLAIN"

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        return f"{scheme}://{address_text((self.host, self.port))}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    @property
    def user(self) -> str | None:
        """Who one is there; the broker alone knows whom a certificate names."""
        return self.username if self._is_plain else None

    @property
    def response(self) -> str:
        """What the mechanism asks for: SASL PLAIN, or nothing beside a certificate."""
        return f"\0{self.username}\0{self.password}" if self._is_plain else ""

    @property
    def _is_plain(self) -> bool:
        return self.mechanism == "PLAIN"


def read_address(given: str | Mapping[str, Any]) -> Address:
    """Read one of ``urls``; raise ``ValueError`` for one that is none."""
    try:
        return _of_text(given) if isinstance(given, str) else _of_parts(given)
    except (ValueError, KeyError) as error:
        detail = f": {error}" if isinstance(error, _WrongPartError) else ""
        form = "'amqp://host:port/vhost', with 'user:password@' before the host"
        message = f"urls: {_shown(given)} is not of the form {form}{detail}."
        raise ValueError(message) from None


def _shown(given: str | Mapping[str, Any]) -> str:
    """Hide who we are also in a text that is no URL."""
    if not isinstance(given, str):
        return masked(given)
    _, at, rest = given.rpartition("@")
    return masked(f"...{at}{rest}" if at else given)


class _WrongPartError(ValueError):
    """A part that tells no secret."""


def _of_text(text: str) -> Address:
    url = urlsplit(text)
    if not url.hostname:
        raise ValueError
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    tls = _SCHEMES[url.scheme]
    return Address(
        url.hostname,
        url.port or (TLS_PORT if tls else PLAIN_PORT),
        tls,
        GUEST if url.username is None else unquote(url.username),
        GUEST if url.password is None else unquote(url.password),
        unquote(url.path[1:]) or "/",
        float(query["heartbeat"]) if "heartbeat" in query else None,
        int(query["frameMax"]) if "frameMax" in query else None,
        query.get("locale", "en_US"),
        _mechanism(query.get("auth_mechanism", "plain")),
    )


def _of_parts(parts: Mapping[str, Any]) -> Address:
    tls = _SCHEMES[parts.get("protocol", "amqp")]
    return Address(
        parts.get("hostname", "localhost"),
        parts.get("port", TLS_PORT if tls else PLAIN_PORT),
        tls,
        parts.get("username", GUEST),
        parts.get("password", GUEST),
        parts.get("vhost", "/"),
        parts.get("heartbeat"),
        parts.get("frame_max"),
        parts.get("locale", "en_US"),
    )


def _mechanism(name: str) -> str:
    if name.upper() not in {"PLAIN", "EXTERNAL"}:
        message = f"auth_mechanism is 'plain' or 'external', not {name!r}"
        raise _WrongPartError(message)
    return name.upper()
