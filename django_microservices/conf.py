"""``MICROSERVICES`` of settings: read here and nowhere else.

``clients`` and ``servers`` are read like ``caches``: ``clients["NAME"]`` may stand at
module level, and follows ``override_settings``.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .dispatch.discovery import Discovery
from .dispatch.handlers import Handler
from .endpoints.config import DEFAULT_TIMEOUT, ClientConfig, ServerConfig
from .endpoints.named import Ends
from .options import build_transport
from .schema import check_keys, imported, items, number, unknown, whole
from .wire.secrets import masked

# The ends and their loops are imported when one is made: most commands of a project,
# the checks among them, read settings and make none.
if TYPE_CHECKING:
    from .endpoints.client import Client
    from .endpoints.server import Server
    from .runtime.microservice import Microservice

SETTING = "MICROSERVICES"
DEFAULT_TRANSPORT = "django_microservices.transports.TCPTransport"
DEFAULTS: dict[str, Any] = {
    "NAME": None,
    "SERVERS": {"default": {}},
    "CLIENTS": {},
    "MIDDLEWARE": (),
    "SYNC_THREADS": 8,
    "STREAM_THREADS": 4,
    "DATABASE_MAX_AGE": 60,
    "DRAIN_TIMEOUT": 30,
}
_SERVER_KEYS = ("TRANSPORT", "OPTIONS", "HANDLERS", "CONCURRENCY", "MIDDLEWARE")
_CLIENT_KEYS = ("TRANSPORT", "OPTIONS", "TIMEOUT", "MIDDLEWARE")


def setting(name: str) -> Any:
    """Return one entry of ``MICROSERVICES``, or its default."""
    given = getattr(settings, SETTING, {})
    check_keys(given, DEFAULTS, SETTING)
    return given.get(name, DEFAULTS[name])


def service_name() -> str:
    """Return ``NAME``: the consumer group of this service."""
    name = setting("NAME") or (settings.SETTINGS_MODULE or "django").split(".")[0]
    return str(name)


def names_in(kind: str) -> list[str]:
    """Return the names in ``SERVERS`` or ``CLIENTS``."""
    entries, path = setting(kind), f"{SETTING}[{kind!r}]"
    check_keys(entries, entries, path)
    for name in entries:
        if not isinstance(name, str):
            message = f"{path}: {masked(name)} is no name."
            raise ImproperlyConfigured(message)
    return list(entries)


# --- entries ----------------------------------------------------------------------


def path_of(kind: str, name: str) -> str:
    """Return where an entry of ``SERVERS`` or ``CLIENTS`` stands, for messages."""
    return f"{SETTING}[{kind!r}][{name!r}]"


def entry_of(kind: str, name: str) -> tuple[Any, str]:
    """Return an entry of ``SERVERS`` or ``CLIENTS``, and its path for messages.

    An entry that is a callable is called; the result of an async one is awaitable.
    """
    names, path = names_in(kind), path_of(kind, name)
    if name not in names:
        raise ImproperlyConfigured(unknown(path, name, names))
    entry = setting(kind)[name]
    return (entry() if callable(entry) else entry), path


def client_config(entry: Mapping[str, Any], path: str) -> ClientConfig:
    """Read one entry of ``CLIENTS``."""
    check_keys(entry, _CLIENT_KEYS, path)
    transport = _transport(entry, path, "client")
    timeout = entry.get("TIMEOUT", DEFAULT_TIMEOUT)
    if timeout is not None:
        timeout = number(timeout, f"{path}['TIMEOUT']")
    middleware = middleware_of(entry, path)
    serve = partial(_serve_here, transport) if transport.in_process else None
    return ClientConfig(transport, timeout, middleware, serve)


def server_config(name: str, entry: Mapping[str, Any], path: str) -> ServerConfig:
    """Read one entry of ``SERVERS``."""
    check_keys(entry, _SERVER_KEYS, path)
    transport = _transport(entry, path, "server")
    concurrency = whole(entry.get("CONCURRENCY", 100), f"{path}['CONCURRENCY']")
    middleware = (*middleware_everywhere(), *middleware_of(entry, path))
    handlers = handlers_of(name, entry.get("HANDLERS"), path)
    return ServerConfig(transport, handlers, middleware, concurrency, settings.DEBUG)


def _transport(entry: Mapping[str, Any], path: str, end: str) -> Any:
    given = entry.get("TRANSPORT", DEFAULT_TRANSPORT)
    options = entry.get("OPTIONS", {})
    return build_transport(given, options, path, end, service_name)


def middleware_everywhere() -> tuple[Any, ...]:
    """Return what stands around every handler, on every server."""
    return middleware_of({"MIDDLEWARE": setting("MIDDLEWARE")}, SETTING)


def middleware_of(entry: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """Import the middleware of one entry of ``SERVERS`` or ``CLIENTS``."""
    path = f"{path}['MIDDLEWARE']"
    given = items(entry.get("MIDDLEWARE", ()), path)
    parts = tuple(imported(item, path) for item in given)
    for part in parts:
        if not callable(part):
            message = f"{path}: {masked(part)} is neither a callable nor a dotted path."
            raise ImproperlyConfigured(message)
    return parts


async def _later(read: Callable[[Any], Any], entry: Any) -> Any:
    return read(await entry)


def _read(read: Callable[[Any], Any], entry: Any) -> Any:
    """Read an entry now, or once it is known."""
    return _later(read, entry) if inspect.isawaitable(entry) else read(entry)


# --- handlers ---------------------------------------------------------------------

discovery = Discovery(lambda name: clients[name])


def handlers_of(server: str, named: Iterable[str] | None, path: str) -> list[Handler]:
    """Return the handlers that a server offers; ``named`` is its ``HANDLERS``."""
    path = f"{path}['HANDLERS']"
    names = None if named is None else items(named, path)
    for name in names or ():
        if not (isinstance(name, str) and all(name.split("."))):
            message = f"{path}: {masked(name)} is no dotted name of an app or module."
            raise ImproperlyConfigured(message)
    return discovery.handlers(server, names, path)


# --- clients and servers by name --------------------------------------------------


def _make_client(name: str) -> "Client":
    from .endpoints.client import Client

    def load() -> Any:
        entry, path = entry_of("CLIENTS", name)
        return _read(lambda known: client_config(known, path), entry)

    return Client(name, load)


def _make_server(name: str) -> "Server":
    from .endpoints.server import Server

    def load() -> Any:
        entry, path = entry_of("SERVERS", name)
        return _read(lambda known: server_config(name, known, path), entry)

    return Server(name, load)


clients: "Ends[Client]" = Ends(partial(names_in, "CLIENTS"), _make_client)
servers: "Ends[Server]" = Ends(partial(names_in, "SERVERS"), _make_server)


def create_client(transport: Any = DEFAULT_TRANSPORT, **options: Any) -> "Client":
    """Make a client outside settings.

    ``create_client(transport, **options)``, or ``create_client({"TRANSPORT": ...,
    "OPTIONS": ..., "TIMEOUT": ...})`` as an entry of ``CLIENTS`` is written.
    """
    from .endpoints.client import Client

    path = "create_client()"
    entry: Mapping[str, Any] = {"TRANSPORT": transport, "OPTIONS": options}
    if isinstance(transport, Mapping):
        check_keys(options, (), path)
        entry = transport
    config = client_config(entry, path)
    return Client(type(config.transport).__name__, lambda: config)


def create_microservice(names: Iterable[str] = ()) -> "Microservice":
    """Make a Microservice of the servers named, or of all in settings.

    Raises ``ImproperlyConfigured`` for a name that settings do not have, and where they
    have none.
    """
    from .runtime.microservice import Microservice

    known = names_in("SERVERS")
    if not known:
        message = f"{SETTING}['SERVERS']: it is empty: there is nothing to serve."
        raise ImproperlyConfigured(message)
    for name in names:
        if name not in known:
            path = path_of("SERVERS", name)
            raise ImproperlyConfigured(unknown(path, name, known))
    chosen = [servers[name] for name in names or known]
    return Microservice(chosen, clients=_Used(), **microservice_options())


def microservice_options() -> dict[str, Any]:
    """Read the settings of a process."""
    path = SETTING + "[{!r}]"
    return {
        **{
            name.lower(): whole(setting(name), path.format(name))
            for name in ("SYNC_THREADS", "STREAM_THREADS")
        },
        **{
            name.lower(): number(setting(name), path.format(name), zero=True)
            for name in ("DATABASE_MAX_AGE", "DRAIN_TIMEOUT")
        },
    }


class _Used:
    """The clients that were used by the time one asks."""

    def __iter__(self) -> "Iterator[Client]":
        return iter(clients.all())


# --- the memory transport ---------------------------------------------------------


def _serve_here(transport: Any) -> AbstractAsyncContextManager[None]:
    """Serve the other side of a memory transport on the running loop."""
    from .runtime.in_process import serving

    return serving(transport, partial(_other_sides, transport))


async def _other_sides(transport: Any) -> "list[Server]":
    """Return the servers that a client's memory transport meets, none of them run."""
    found = []
    for name in names_in("SERVERS"):
        entry, path = entry_of("SERVERS", name)
        if inspect.isawaitable(entry):
            entry = await entry
        other = _transport(entry, path, "server")
        if type(other) is type(transport) and other.name == transport.name:
            found.append(_make_server(name))
    return found


def _follow_settings(*, setting: str, **_: Any) -> None:
    if setting in {SETTING, "INSTALLED_APPS"}:
        discovery.clear()
        for client in clients.all():
            client.forget()
        servers.clear()


setting_changed.connect(_follow_settings, dispatch_uid="django_microservices")
