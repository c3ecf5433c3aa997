"""The marks that make a function a handler. They only mark; discovery collects."""

import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from inspect import isfunction
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from ..wire.contracts import Event, Request
from ..wire.patterns import Pattern

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")
Self = TypeVar("Self", bound="Controller")
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
            message = f"{kind_name(kind)}() needs at least one pattern."
            raise TypeError(message)
        self.kind = kind
        self.patterns = tuple(_pattern(kind, given) for given in patterns)
        self.contract = next((p for p in patterns if isinstance(p, _CONTRACTS)), None)
        self.options = options


_CONTRACTS = (Request, Event)


def kind_name(kind: str) -> str:
    """Return the name of the decorator that marks a kind of handler."""
    return "message_pattern" if kind == "request" else "event_pattern"


def _pattern(kind: str, given: Any) -> Pattern:
    if callable(given):
        name = getattr(given, "__qualname__", repr(given))
        message = f"Write @{kind_name(kind)}(...) with a pattern, which {name} is not."
        raise TypeError(message)
    if not isinstance(given, _CONTRACTS):
        return Pattern.of(given)
    if (kind == "event") is not isinstance(given, Event):
        other = "event_pattern" if isinstance(given, Event) else "message_pattern"
        message = f"{given!r} is a contract for {other}(), not {kind_name(kind)}()."
        raise TypeError(message)
    return given.pattern


# What a contract asks of a function, and then of a method. The first overload is the
# one that mypy names in its errors; those that overlap with it mean the same.
class _RequestDecorator(Protocol[In, Out]):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[In, P], Out], /
    ) -> Callable[Concatenate[In, P], Out]: ...
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
        self, function: Callable[Concatenate[In, P], Coroutine[Any, Any, Out]], /
    ) -> Callable[Concatenate[In, P], Coroutine[Any, Any, Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Self, In, P], Iterator[Out]], /
    ) -> Callable[Concatenate[Self, In, P], Iterator[Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Self, In, P], AsyncIterator[Out]], /
    ) -> Callable[Concatenate[Self, In, P], AsyncIterator[Out]]: ...
    @overload
    def __call__(
        self,
        function: Callable[Concatenate[Self, In, P], Coroutine[Any, Any, Out]],
        /,
    ) -> Callable[Concatenate[Self, In, P], Coroutine[Any, Any, Out]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Self, In, P], Out], /
    ) -> Callable[Concatenate[Self, In, P], Out]: ...


class _EventDecorator(Protocol[In]):
    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], T], /
    ) -> Callable[Concatenate[In, P], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Self, In, P], T], /
    ) -> Callable[Concatenate[Self, In, P], T]: ...


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
        if not isfunction(function):
            message = f"{kind_name(kind)}() marks functions, not {function!r}."
            raise TypeError(message)
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
    """Put parts outside of those that are there, inherited ones included."""

    def decorate(target: F) -> F:
        setattr(target, attribute, (*parts, *getattr(target, attribute, ())))
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
            message = (
                f"{cls.__qualname__}: scope={scope!r} is not 'process' or 'message'."
            )
            raise TypeError(message)
        if scope is not None:
            cls.scope = scope
