"""Every handler of a project, and which of them a pattern reaches."""

import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import module_has_submodule

from ..wire.messages import Subscription
from ..wire.patterns import EXACT, Grammar
from .decorators import Controller, Mark, marks_of
from .handlers import Handler, ResolveClient

HANDLERS = "handlers"


class UnusableHandlers(ImproperlyConfigured):
    """Every handler that cannot be used as it is written: ``errors``, one for each."""

    def __init__(self, errors: list[ImproperlyConfigured]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def handler_modules(app: AppConfig) -> Iterator[ModuleType]:
    """Import an app's ``handlers.py``, or its package with all submodules."""
    if app.module is not None and module_has_submodule(app.module, HANDLERS):
        yield from modules_of(f"{app.name}.{HANDLERS}")


def modules_named(name: str) -> Iterator[ModuleType]:
    """Import the handlers of an installed app, or a module with its submodules.

    Raises ``ModuleNotFoundError`` for what is neither.
    """
    for app in apps.get_app_configs():
        if app.name == name:
            return handler_modules(app)
    return modules_of(name)


def modules_of(path: str) -> Iterator[ModuleType]:
    """Import a module, and where it is a package its submodules."""
    module = import_module(path)
    yield module
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{path}."):
        yield import_module(info.name)


def discover(
    modules: Iterable[ModuleType], resolve_client: ResolveClient
) -> list[Handler]:
    """Return the handlers *defined* in these modules, each function once.

    Of a Controller also those that it inherits, wherever they are defined; an abstract
    one has none of its own. Raises :class:`UnusableHandlers`.
    """
    handlers: list[Handler] = []
    errors: list[ImproperlyConfigured] = []
    for function, mark, controller in _marked_in(modules):
        try:
            if controller is not None:
                _refuse_without_self(function)
            handlers.append(Handler(function, mark, controller, resolve_client))
        except ImproperlyConfigured as error:
            errors.append(error)
    if errors:
        raise UnusableHandlers(errors)
    return handlers


Marked = tuple[Any, Mark, type[Controller] | None]


def _marked_in(modules: Iterable[ModuleType]) -> Iterator[Marked]:
    seen: set[int] = set()
    for module in modules:
        for member in _defined_in(module):
            if id(member) not in seen:
                seen.add(id(member))
                yield from _marks_on(member)


def _defined_in(module: ModuleType) -> Iterator[Any]:
    for member in tuple(vars(module).values()):
        if getattr(member, "__module__", None) == module.__name__:
            yield member


def _marks_on(member: Any) -> Iterator[Marked]:
    if inspect.isfunction(member):
        for mark in marks_of(member):
            yield member, mark, None
    elif _is_controller(member):
        for _, found in inspect.getmembers_static(member, _is_function):
            for mark in marks_of(getattr(found, "__func__", found)):
                yield found, mark, member


def _is_function(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, _WITHOUT_SELF)


_WITHOUT_SELF = (staticmethod, classmethod)


def _refuse_without_self(function: Any) -> None:
    if isinstance(function, _WITHOUT_SELF):
        cure = f"leave @{type(function).__name__} out"
    elif not _takes_self(function):
        cure = "write it first"
    else:
        return
    message = (
        f"{function.__module__}.{function.__qualname__}: a Controller's handler takes "
        f"self: {cure}, or make it a function of the module."
    )
    raise ImproperlyConfigured(message)


def _takes_self(function: Any) -> bool:
    """Whether the first parameter is meant for the instance.

    By another name it is, if another follows that may be the payload.
    """
    first, *rest = inspect.signature(function).parameters.values() or (None,)
    if first is None or first.kind in _BY_NAME:
        return False
    if first.name == "self" or first.kind is first.VAR_POSITIONAL:
        return True
    return bool(rest) and first.annotation is first.empty


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


def _is_controller(member: Any) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, Controller)
        and not inspect.isabstract(member)
    )


class Registry:
    """The handlers of one server, found by the text of a pattern."""

    def __init__(self, handlers: Iterable[Handler], grammar: Grammar = EXACT) -> None:
        self.handlers = list(handlers)
        self.grammar = grammar
        self._requests: dict[str, Handler] = {}
        self._events: dict[str, list[Handler]] = {}
        self._wild: list[tuple[str, Handler]] = []
        for handler in self.handlers:
            for pattern in handler.patterns:
                self._add(pattern.route, handler)

    def _add(self, route: str, handler: Handler) -> None:
        if self.grammar.is_wildcard(route):
            self._wild.append((route, handler))
        elif handler.kind == "request":
            self._requests.setdefault(route, handler)
        else:
            self._events.setdefault(route, []).append(handler)

    def request(self, route: str) -> list[Handler]:
        """Return the one handler of a request: exact, most specific, first.

        As with Nest, a request to an event's pattern runs its handlers.
        """
        return self._request_handler(route) or self._event_handlers(route)

    def event(self, route: str) -> list[Handler]:
        """Return every handler of an event, each once.

        As with Nest, an event to a request's pattern runs its handler.
        """
        return self._event_handlers(route) or self._request_handler(route)

    def _request_handler(self, route: str) -> list[Handler]:
        if route in self._requests:
            return [self._requests[route]]
        wild = self._matching(route, "request")
        if not wild:
            return []
        best = max(wild, key=lambda pair: self.grammar.specificity(pair[0]))
        return [best[1]]

    def _event_handlers(self, route: str) -> list[Handler]:
        exact = self._events.get(route, [])
        wild = [handler for _, handler in self._matching(route, "event")]
        # A function that is decorated twice is two handlers, and runs once.
        found: dict[Any, Handler] = {}
        for handler in (*exact, *wild):
            found.setdefault((handler.source, handler.controller), handler)
        return list(found.values())

    def _matching(self, route: str, kind: str) -> list[tuple[str, Handler]]:
        return [
            (pattern, handler)
            for pattern, handler in self._wild
            if handler.kind == kind and self.grammar.matches(pattern, route)
        ]

    def chosen(self, handler: Handler, route: str) -> str:
        """Return the handler's pattern that suits a message best."""
        routes = [pattern.route for pattern in handler.patterns]
        if route in routes:
            return route
        fitting = [one for one in routes if self.grammar.matches(one, route)]
        return max(fitting, key=self.grammar.specificity)

    @property
    def subscriptions(self) -> list[Subscription]:
        """Everything that the server must listen for."""
        return [s for handler in self.handlers for s in handler.subscriptions]
