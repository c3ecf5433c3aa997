"""What settings say, constructed for the checks."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from django.core.checks import CheckMessage, Error, Info
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..dispatch.handlers import Handler
from ..dispatch.registry import UnusableHandlers
from ..endpoints.config import ClientConfig, ServerConfig
from ..transports.base import Transport
from ..wire.secrets import without_secrets
from . import TAG


class Found:
    """What settings say, constructed, and the errors met on the way.

    ``names`` are the servers of settings and ``client_names`` the clients, whether or
    not they can be constructed, and ``by_default`` the servers without ``HANDLERS``.
    ``middleware`` is what stands in settings, by the path of where.
    """

    def __init__(self) -> None:
        self.servers: dict[str, ServerConfig] = {}
        self.clients: dict[str, ClientConfig] = {}
        self.by_default: set[str] = set()
        self.middleware: dict[str, tuple[Any, ...]] = {}
        self.messages: list[CheckMessage] = []
        self._try(conf.microservice_options)
        self.middleware[conf.SETTING] = self._try(conf.middleware_everywhere) or ()
        self.names: list[str] = self._try(partial(conf.names_in, "SERVERS")) or []
        for name in self.names:
            self._try(partial(self._add_server, name))
        self.client_names: list[str] = (
            self._try(partial(conf.names_in, "CLIENTS")) or []
        )
        for name in self.client_names:
            self._try(partial(self._add_client, name))

    def _try(self, construct: Callable[[], Any]) -> Any:
        try:
            return construct()
        except UnusableHandlers as error:
            self._add(*map(str, error.errors))
        except ImproperlyConfigured as error:
            self._add(str(error))
        return None

    def _add(self, *texts: str) -> None:
        for text in texts:
            id_ = "E001" if text.startswith(conf.SETTING) else "E002"
            message = Error(text, id=f"{TAG}.{id_}")
            if message not in self.messages:  # the same handler on several servers
                self.messages.append(message)

    def _add_server(self, name: str) -> None:
        entry, path = self._entry("SERVERS", name)
        if self._is_async(entry, path):
            return
        self.servers[name] = conf.server_config(name, entry, path)
        self.middleware[path] = conf.middleware_of(entry, path)
        if entry.get("HANDLERS") is None:
            self.by_default.add(name)

    def _add_client(self, name: str) -> None:
        entry, path = self._entry("CLIENTS", name)
        if not self._is_async(entry, path):
            self.clients[name] = conf.client_config(entry, path)
            self.middleware[path] = self.clients[name].middleware

    def _entry(self, kind: str, name: str) -> tuple[Any, str]:
        try:
            return conf.entry_of(kind, name)
        except ImproperlyConfigured:
            raise
        except Exception as error:
            path = conf.path_of(kind, name)
            reason = without_secrets(f"{type(error).__name__}: {error}", None)
            message = f"{path}: the callable raised {reason}"
            raise ImproperlyConfigured(message) from error

    def _is_async(self, entry: Any, path: str) -> bool:
        if not inspect.isawaitable(entry):
            return False
        if inspect.iscoroutine(entry):
            entry.close()
        text = f"{path}: an async callable, which is not called by checks."
        self.messages.append(Info(text, id=f"{TAG}.I001"))
        return True

    def transports(self) -> Iterator[tuple[str, str, Transport]]:
        """Yield the path of each entry, its kind and its transport."""
        ends: dict[str, dict[str, Any]] = {"SERVERS": {**self.servers}}
        ends["CLIENTS"] = {**self.clients}
        for kind, configs in ends.items():
            for name, config in configs.items():
                yield conf.path_of(kind, name), kind, config.transport

    def with_tls(self) -> Iterator[tuple[str, str, Transport, Mapping[str, Any]]]:
        """Yield those that have ``TLSOptions``, and what these say."""
        for path, kind, transport in self.transports():
            options = getattr(transport, transport.tls_option, None)
            if isinstance(options, Mapping):
                yield path, kind, transport, options

    @property
    def handlers(self) -> list[Handler]:
        """Every handler that a server offers, each once."""
        every = (h for config in self.servers.values() for h in config.handlers)
        return list({(h.name, h.controller, h.patterns): h for h in every}.values())
