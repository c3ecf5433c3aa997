"""``MICROSERVICES`` of settings: read here and nowhere else.

``clients`` and ``servers`` are read like ``caches``: ``clients["NAME"]`` may stand at
module level, and follows ``override_settings``.
"""

import datetime
import difflib
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .concurrency.inline import Inline
from .dispatch.handlers import Handler
from .dispatch.registry import discover, handler_modules, modules_of
from .endpoints.client import DEFAULT_TIMEOUT, Client, ClientConfig
from .endpoints.server import Server, ServerConfig
from .runtime.microservice import Microservice
from .transports.base import Transport

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
    name = setting("NAME") or settings.SETTINGS_MODULE.split(".")[0]
    return str(name)


def check_keys(given: Any, known: Iterable[str], path: str) -> None:
    """Refuse keys that nobody reads; ``path`` begins the message."""
    if not isinstance(given, Mapping):
        message = f"{path}: {given!r} is not a dict."
        raise ImproperlyConfigured(message)
    for key in given:
        if key not in known:
            raise ImproperlyConfigured(unknown(f"{path}[{key!r}]", key, known))


def unknown(path: str, name: Any, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which one may have been meant."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."
    return f"{path}: unknown; {hint}"


# --- transports ---


def build_transport(given: Any, options: Any, path: str, end: str) -> Transport:
    """Make the transport that ``TRANSPORT`` and ``OPTIONS`` name.

    ``end`` is "server" or "client". Raises ``ImproperlyConfigured`` whose message
    begins with ``path``.
    """
    if isinstance(given, Transport):
        if options:
            message = f"{path}['OPTIONS']: TRANSPORT is an object and has its options."
            raise ImproperlyConfigured(message)
        return given
    cls = transport_class(given, path)
    check_options(cls, options, f"{path}['OPTIONS']", end)
    try:
        return cls(**{key: _seconds(value) for key, value in options.items()})
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        message = f"{path}['OPTIONS']: {error}"
        raise ImproperlyConfigured(message) from error


def transport_class(given: Any, path: str) -> type[Transport]:
    """Import a transport's class."""
    cls = given
    if isinstance(given, str):
        try:
            cls = import_string(given)
        except ImportError as error:
            message = f"{path}['TRANSPORT']: cannot import {given!r}: {error}"
            raise ImproperlyConfigured(message) from error
    if not (isinstance(cls, type) and issubclass(cls, Transport)):
        message = f"{path}['TRANSPORT']: {given!r} is not a Transport."
        raise ImproperlyConfigured(message)
    return cls


def check_options(cls: type[Transport], options: Any, path: str, end: str) -> None:
    """Hold ``OPTIONS`` against the signature of the transport's class."""
    foreign = cls.client_only if end == "server" else cls.server_only
    known = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options if isinstance(options, Mapping) else ():
        if name in foreign:
            other = "client" if end == "server" else "server"
            message = f"{path}[{name!r}]: this option is for a {other} only."
            raise ImproperlyConfigured(message)
    check_keys(options, known, path)
    check_types(cls, options, path)


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, datetime.timedelta) else value


# --- entries ---


def _entry(kind: str, name: str, known: Iterable[str]) -> tuple[Any, str]:
    entries = setting(kind)
    path = f"{SETTING}[{kind!r}]"
    if name not in entries:
        raise ImproperlyConfigured(unknown(f"{path}[{name!r}]", name, entries))
    entry = entries[name]
    path = f"{path}[{name!r}]"
    return (entry() if callable(entry) else entry), path


def _import_all(paths: Iterable[Any], path: str) -> tuple[Any, ...]:
    return tuple(_import(item, path) for item in paths)


def _import(item: Any, path: str) -> Any:
    if not isinstance(item, str):
        return item
    try:
        return import_string(item)
    except ImportError as error:
        message = f"{path}: cannot import {item!r}: {error}"
        raise ImproperlyConfigured(message) from error


def client_config(entry: Mapping[str, Any], path: str) -> ClientConfig:
    """Read one entry of ``CLIENTS``."""
    check_keys(entry, _CLIENT_KEYS, path)
    transport = build_transport(
        entry.get("TRANSPORT", DEFAULT_TRANSPORT), entry.get("OPTIONS", {}), path, "client"
    )
    timeout = _seconds(entry.get("TIMEOUT", DEFAULT_TIMEOUT))
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        message = f"{path}['TIMEOUT']: {timeout!r} is not a number of seconds over 0."
        raise ImproperlyConfigured(message)
    middleware = _import_all(entry.get("MIDDLEWARE", ()), f"{path}['MIDDLEWARE']")
    serve = (lambda: serve_in_process(transport)) if transport.in_process else None
    return ClientConfig(transport, timeout, middleware, serve)


def server_config(name: str, entry: Mapping[str, Any], path: str) -> ServerConfig:
    """Read one entry of ``SERVERS``."""
    check_keys(entry, _SERVER_KEYS, path)
    transport = build_transport(
        entry.get("TRANSPORT", DEFAULT_TRANSPORT), entry.get("OPTIONS", {}), path, "server"
    )
    concurrency = entry.get("CONCURRENCY", 100)
    if not isinstance(concurrency, int) or concurrency < 1:
        message = f"{path}['CONCURRENCY']: {concurrency!r} is not a whole number over 0."
        raise ImproperlyConfigured(message)
    return ServerConfig(
        transport,
        handlers_of(name, entry.get("HANDLERS"), path),
        (
            *_import_all(setting("MIDDLEWARE"), f"{SETTING}['MIDDLEWARE']"),
            *_import_all(entry.get("MIDDLEWARE", ()), f"{path}['MIDDLEWARE']"),
        ),
        concurrency,
        settings.DEBUG,
    )


async def _later(read: Callable[[Any], Any], entry: Any) -> Any:
    return read(await entry)


def _read(read: Callable[[Any], Any], entry: Any) -> Any:
    """Read an entry now, or once it is known."""
    return _later(read, entry) if inspect.isawaitable(entry) else read(entry)


# --- handlers ---

_discovered: dict[tuple[str, ...] | None, list[Handler]] = {}


def handlers_of(
    server: str, named: Iterable[str] | None, path: str
) -> list[Handler]:
    """Return the handlers that a server offers."""
    key = None if named is None else tuple(named)
    if key not in _discovered:
        modules = _modules(key, f"{path}['HANDLERS']")
        _discovered[key] = discover(modules, clients.__getitem__)
    return [
        handler
        for handler in _discovered[key]
        if handler.servers is None or server in handler.servers
    ]


def _modules(named: tuple[str, ...] | None, path: str) -> list[Any]:
    if named is None:
        return [m for app in apps.get_app_configs() for m in handler_modules(app)]
    modules: list[Any] = []
    installed = {app.name: app for app in apps.get_app_configs()}
    for name in named:
        if name in installed:
            modules += handler_modules(installed[name])
            continue
        try:
            modules += modules_of(name)
        except ImportError as error:
            message = f"{path}: {name!r} is neither an installed app nor a module: {error}"
            raise ImproperlyConfigured(message) from error
    return modules


# --- clients and servers by name ---

E = TypeVar("E", Client, Server)


class Ends(Generic[E]):
    """``clients`` and ``servers``: one object per name, for the whole process."""

    def __init__(self, kind: str, make: Callable[[str], E]) -> None:
        self.kind = kind
        self._make = make
        self._ends: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        try:
            return self._ends[name]
        except KeyError:
            return self._ends.setdefault(name, self._make(name))

    def __iter__(self) -> Iterator[str]:
        return iter(setting(self.kind))

    def all(self) -> list[E]:
        """Return those that were used so far."""
        return list(self._ends.values())


def _make_client(name: str) -> Client:
    def load() -> Any:
        entry, path = _entry("CLIENTS", name, _CLIENT_KEYS)
        return _read(lambda known: client_config(known, path), entry)

    return Client(name, load)


def _make_server(name: str) -> Server:
    def load() -> Any:
        entry, path = _entry("SERVERS", name, _SERVER_KEYS)
        return _read(lambda known: server_config(name, known, path), entry)

    return Server(name, load)


clients: Ends[Client] = Ends("CLIENTS", _make_client)
servers: Ends[Server] = Ends("SERVERS", _make_server)


def create_client(transport: Any = DEFAULT_TRANSPORT, **options: Any) -> Client:
    """Make a client outside settings.

    ``create_client(transport, **options)``, or ``create_client({"TRANSPORT": ...,
    "OPTIONS": ..., "TIMEOUT": ...})`` as an entry of ``CLIENTS`` is written.
    """
    entry = (
        dict(transport)
        if isinstance(transport, Mapping)
        else {"TRANSPORT": transport, "OPTIONS": options}
    )
    config = client_config(entry, "create_client()")
    return Client(type(config.transport).__name__, lambda: config)


def create_microservice(names: Iterable[str] = ()) -> Microservice:
    """Make a Microservice of the servers named, or of all in settings."""
    return Microservice(
        [servers[name] for name in names or setting("SERVERS")],
        clients=_Used(),
        sync_threads=setting("SYNC_THREADS"),
        stream_threads=setting("STREAM_THREADS"),
        database_max_age=_seconds(setting("DATABASE_MAX_AGE")),
        drain_timeout=_seconds(setting("DRAIN_TIMEOUT")),
    )


class _Used:
    """The clients that were used by the time one asks."""

    def __iter__(self) -> Iterator[Client]:
        return iter(clients.all())


@asynccontextmanager
async def serve_in_process(transport: Any) -> AsyncIterator[None]:
    """Serve the other side of a memory transport on the running loop."""
    if transport.is_served():
        yield
        return
    async with AsyncExitStack() as stack:
        for name in setting("SERVERS"):
            server = _make_server(name)
            if _is_other_side(name, transport):
                await server.start(_inline)
                stack.push_async_callback(server.stop)
        yield


def _inline(_: bool) -> tuple[Any, Any]:  # noqa: FBT001
    import asyncio  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    return Inline(loop), Inline(loop)


def _is_other_side(name: str, transport: Any) -> bool:
    entry, path = _entry("SERVERS", name, _SERVER_KEYS)
    other = build_transport(
        entry.get("TRANSPORT", DEFAULT_TRANSPORT), entry.get("OPTIONS", {}), path, "server"
    )
    return type(other) is type(transport) and other.name == transport.name


def _follow_settings(*, setting: str, **_: Any) -> None:  # noqa: ARG001
    if setting in {SETTING, "INSTALLED_APPS"}:
        _discovered.clear()
        for client in clients.all():
            client.forget()
        servers._ends.clear()  # noqa: SLF001


setting_changed.connect(_follow_settings, dispatch_uid="django_microservices")
