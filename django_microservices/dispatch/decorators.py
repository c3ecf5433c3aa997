"""The marks that make a function a handler. They only mark; discovery collects."""

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from ..wire.contracts import Event, Request
from ..wire.patterns import Pattern

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
P = ParamSpec("P")

MARKS = "_microservice_marks"
_marked: "weakref.WeakSet[Any]" = weakref.WeakSet()


class Mark:
    """What one decorator said of a function."""

    __slots__ = ("contract", "kind", "options", "patterns")

    def __init__(
        self, kind: str, patterns: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        if not patterns:
            message = f"{kind}_pattern() needs at least one pattern."
            raise TypeError(message)
        self.kind = kind
        self.contract = next(
            (p for p in patterns if isinstance(p, Request | Event)), None
        )
        self.patterns = tuple(
            p.pattern if isinstance(p, Request | Event) else Pattern.of(p)
            for p in patterns
        )
        self.options = options


class _RequestDecorator(Protocol[In, Out]):
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], Iterator[Out]], /
    ) -> Callable[Concatenate[In, P], Iterator[Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], AsyncIterator[Out]], /
    ) -> Callable[Concatenate[In, P], AsyncIterator[Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], Awaitable[Out]], /
    ) -> Callable[Concatenate[In, P], Awaitable[Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], Out], /
    ) -> Callable[Concatenate[In, P], Out]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, In, P], Awaitable[Out]], /
    ) -> Callable[Concatenate[Any, In, P], Awaitable[Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, In, P], Out], /
    ) -> Callable[Concatenate[Any, In, P], Out]: ...


class _EventDecorator(Protocol[In]):
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], T], /
    ) -> Callable[Concatenate[In, P], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, In, P], T], /
    ) -> Callable[Concatenate[Any, In, P], T]: ...


@overload
def message_pattern(
    contract: Request[In, Out], /, **options: Any
) -> _RequestDecorator[In, Out]: ...
@overload
def message_pattern(*patterns: Any, **options: Any) -> Callable[[F], F]: ...
def message_pattern(*patterns: Any, **options: Any) -> Any:
    """Mark a function as the one that answers requests with these patterns.

    Options: ``servers`` (a name or names; default: every server), ``atomic`` (run in a
    transaction), ``using`` (its database alias), ``timeout`` (seconds),
    ``uses_database`` (an async handler's ORM calls get a thread), ``response`` (a type
    or serializer that shapes the answer), and what one wire knows (``queue``, ``qos``).
    """
    return _mark("request", patterns, options)


@overload
def event_pattern(contract: Event[In], /, **options: Any) -> _EventDecorator[In]: ...
@overload
def event_pattern(*patterns: Any, **options: Any) -> Callable[[F], F]: ...
def event_pattern(*patterns: Any, **options: Any) -> Any:
    """Mark a function as one of those that run for events with these patterns.

    Takes the options of :func:`message_pattern`, without ``response``.
    """
    return _mark("event", patterns, options)


def _mark(kind: str, patterns: tuple[Any, ...], options: dict[str, Any]) -> Any:
    mark = Mark(kind, patterns, options)

    def decorate(function: F) -> F:
        marks: list[Mark] = getattr(function, MARKS, [])
        setattr(function, MARKS, [mark, *marks])
        _marked.add(function)
        return function

    return decorate


def marks_of(function: Any) -> list[Mark]:
    """Return what decorators said of a function."""
    marks: list[Mark] = getattr(function, MARKS, [])
    return marks


def marked_functions() -> list[Any]:
    """Return every function that is marked in this process, wherever it stands."""
    return sorted(_marked, key=lambda f: (f.__module__, f.__qualname__))


# --- the four shapes of middleware --------------------------------------------------


def _use(attribute: str, parts: tuple[Any, ...]) -> Callable[[F], F]:
    def decorate(target: F) -> F:
        own = target.__dict__.get(attribute, ())
        setattr(target, attribute, (*parts, *own))
        return target

    return decorate


def use_guards(*guards: Any) -> Callable[[F], F]:
    """Ask ``guard(context) -> bool`` before a handler or Controller runs."""
    return _use("guards", guards)


def use_pipes(*pipes: Any) -> Callable[[F], F]:
    """Pass each payload value through ``pipe(value, parameter)``."""
    return _use("pipes", pipes)


def use_interceptors(*interceptors: Any) -> Callable[[F], F]:
    """Wrap a handler or Controller in ``interceptor(get_response)``."""
    return _use("interceptors", interceptors)


def use_filters(*filters: Any) -> Callable[[F], F]:
    """Give exceptions to ``filter(exception, context)``.

    What it returns is the answer; what it raises is the error. A filter raises the
    exception again that is not its concern.
    """
    return _use("filters", filters)


class Controller:
    """Handlers that share state, guards, pipes, interceptors and filters.

    One instance per process, or one per message with ``class X(Controller,
    scope="message")``.
    """

    scope = "process"
    guards: Iterable[Any] = ()
    pipes: Iterable[Any] = ()
    interceptors: Iterable[Any] = ()
    filters: Iterable[Any] = ()

    def __init_subclass__(cls, scope: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if scope not in {None, "process", "message"}:
            message = f"{cls.__qualname__}: scope={scope!r} is not 'process' or 'message'."
            raise TypeError(message)
        if scope is not None:
            cls.scope = scope
