"""A Handler: one function of an app, with all that was said of it, decided once."""

import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, get_args, get_origin, get_type_hints

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ..wire.messages import Subscription
from ..wire.patterns import Pattern
from .decorators import Controller, Mark
from .params import Plan, plan
from .payloads import encoder_for

_OPTIONS = frozenset(
    ("servers", "atomic", "using", "timeout", "uses_database", "response")
)
_WIRE_OPTIONS = frozenset(("queue", "qos"))

ResolveClient = Callable[[str], Any]


class Handler:
    """What the registry finds and a server runs.

    ``function`` is the user's, bound to its Controller's instance where it has one;
    ``streams`` says that it answers with items; ``is_async`` that it runs on the loop.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        mark: Mark,
        controller: type[Controller] | None,
        resolve_client: ResolveClient,
    ) -> None:
        self.source = function
        self.kind = mark.kind
        self.patterns: tuple[Pattern, ...] = mark.patterns
        self.controller = controller
        self.module = function.__module__
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._read_options(mark)
        self.streams = _streams(function)
        self.is_async = iscoroutinefunction(function) or inspect.isasyncgenfunction(
            function
        )
        self._check()
        self.guards = self._parts("guards")
        self.pipes = self._parts("pipes")
        self.interceptors = self._parts("interceptors")
        self.filters = self._parts("filters")[::-1]
        self.plan: Plan = plan(
            function,
            resolve_client=resolve_client,
            skip_self=controller is not None,
            pipes=self.pipes,
        )
        self.function = self._bind(function)
        self.answer: Any = self._answer(mark)
        self.encode = encoder_for(self.answer)

    def _read_options(self, mark: Mark) -> None:
        options = mark.options
        unknown = options.keys() - _OPTIONS - _WIRE_OPTIONS
        if unknown:
            message = (
                f"{self.name}: {mark.kind}_pattern() has no option "
                f"{', '.join(sorted(unknown))}; it takes "
                f"{', '.join(sorted(_OPTIONS | _WIRE_OPTIONS))}."
            )
            raise ImproperlyConfigured(message)
        servers = options.get("servers")
        self.servers: tuple[str, ...] | None = (
            (servers,) if isinstance(servers, str) else servers and tuple(servers)
        )
        self.atomic: bool = options.get("atomic", False)
        self.using: str | None = options.get("using")
        self.timeout: float | None = options.get("timeout")
        self.uses_database: bool = options.get("uses_database", False)
        self.wire_options = {k: options[k] for k in _WIRE_OPTIONS & options.keys()}

    def _check(self) -> None:
        if self.is_async and self.atomic:
            message = (
                f"{self.name}: atomic=True needs a sync handler: Django's transactions "
                "do not work in async code."
            )
            raise ImproperlyConfigured(message)
        if self.uses_database and not self.is_async:
            message = (
                f"{self.name}: uses_database=True is for async handlers; a sync one "
                "may use the database as it is."
            )
            raise ImproperlyConfigured(message)

    def _parts(self, shape: str) -> tuple[Any, ...]:
        """Return the Controller's parts of a shape and then the handler's own."""
        own = getattr(self.source, shape, ())
        shared = getattr(self.controller, shape, ()) if self.controller else ()
        return tuple(
            part() if isinstance(part, type) and shape != "interceptors" else part
            for part in (*shared, *own)
        )

    def _bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.controller is not None:
            function = _bound(function, self.controller)
        if self.atomic and self.streams:
            return _atomic_stream(function, self.using)
        if self.atomic:
            return transaction.atomic(using=self.using)(function)
        return function

    def _answer(self, mark: Mark) -> Any:
        """Return what shapes the answer; of a stream, each of its items."""
        if "response" in mark.options:
            return mark.options["response"]
        annotation = _return_annotation(self.source)
        if self.streams and get_args(annotation):
            return get_args(annotation)[0]
        return Any if self.streams else annotation

    @property
    def subscriptions(self) -> list[Subscription]:
        """What a server must listen for to feed this handler."""
        return [Subscription(p, self.kind, self.wire_options) for p in self.patterns]

    def __repr__(self) -> str:
        return f"<Handler {self.name}>"


def _return_annotation(function: Callable[..., Any]) -> Any:
    try:
        return get_type_hints(function, include_extras=True).get("return", Any)
    except NameError as error:
        message = (
            f"{function.__module__}.{function.__qualname__}: the return annotation "
            f"cannot be resolved ({error}). Import the name at run time, not under "
            "TYPE_CHECKING."
        )
        raise ImproperlyConfigured(message) from error


def _streams(function: Callable[..., Any]) -> bool:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return True
    origin = get_origin(_return_annotation(function))
    return isinstance(origin, type) and (
        issubclass(origin, AsyncIterable)
        or (issubclass(origin, Iterable) and not hasattr(origin, "__len__"))
    )


_instances: dict[type[Controller], Controller] = {}


def _bound(function: Callable[..., Any], cls: type[Controller]) -> Callable[..., Any]:
    if cls.scope == "process":
        if cls not in _instances:
            _instances[cls] = cls()
        bound: Callable[..., Any] = function.__get__(_instances[cls], cls)
        return bound

    def fresh(*args: Any, **kwargs: Any) -> Any:
        return function(cls(), *args, **kwargs)

    return fresh


def _atomic_stream(
    function: Callable[..., Any], using: str | None
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Iterable[Any]:
        with transaction.atomic(using=using):
            yield from function(*args, **kwargs)

    return run
