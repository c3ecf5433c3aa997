"""A Handler: one function of an app, with all that was said of it, decided once."""

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from functools import cached_property
from typing import Any, get_args, get_origin

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ..wire.contracts import Request
from ..wire.messages import Subscription
from ..wire.patterns import Pattern
from .decorators import Controller, Mark
from .marks import Options
from .params import Plan, plan
from .payloads import encoder_for
from .signatures import resolve_hints

_ASYNC_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)
_STREAMS = (Iterator, Iterable, Generator, *_ASYNC_STREAMS)

ResolveClient = Callable[[str], Any]


class Handler:
    """What the registry finds and a server runs.

    ``source`` is the user's function; ``streams`` says that it answers with items;
    ``is_async`` that it runs on the loop. Raises ``ImproperlyConfigured`` that names
    the handler for everything that could never work.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        mark: Mark,
        controller: type[Controller] | None,
        resolve_client: ResolveClient,
    ) -> None:
        self.source = function
        self.mark = mark
        self.kind = mark.kind
        self.patterns: tuple[Pattern, ...] = mark.patterns
        self.controller = controller
        self.module = (controller or function).__module__
        self.name = f"{function.__module__}.{function.__qualname__}"
        if controller is not None:
            _refuse_unmakable(controller)
        self._read_options(Options.of(mark, self.name))
        self._read_function(mark)
        self.guards = self._parts("guards")
        self.pipes = self._parts("pipes")
        self.interceptors = self._parts("interceptors")
        self.filters = self._parts("filters")[::-1]
        self.plan: Plan = plan(
            function,
            resolve_client=resolve_client,
            skip_self=controller is not None,
            pipes=self.pipes,
            payload=_payload(mark),
        )
        self.encode = self._encoder()

    def _read_options(self, options: Options) -> None:
        self.servers = options.servers
        self.atomic = options.atomic
        self.using = options.using
        self.timeout = options.timeout
        self.uses_database = options.uses_database
        self.wire_options = options.of_the_wire
        self._response = options.response

    def _read_function(self, mark: Mark) -> None:
        function = self.source
        returned = resolve_hints(function).get("return", inspect.Parameter.empty)
        kind = get_origin(returned) or returned
        is_generator = inspect.isgeneratorfunction(function)
        is_async_generator = inspect.isasyncgenfunction(function)
        self.streams = is_generator or is_async_generator or _is_any(kind, _STREAMS)
        self.is_async = (
            is_async_generator
            or iscoroutinefunction(function)
            or _is_any(kind, _ASYNC_STREAMS)
        )
        self.answer: Any = self._answer(returned, mark)
        self._check()

    def _answer(self, returned: Any, mark: Mark) -> Any:
        """Return what shapes the answer; of a stream, each of its items."""
        if self._response is not None:
            return self._response
        if returned is inspect.Parameter.empty:
            contract = mark.contract
            return contract.returns if isinstance(contract, Request) else Any
        if self.streams:
            return next(iter(get_args(returned)), Any)
        return returned

    def _encoder(self) -> Callable[[Any], bytes]:
        try:
            return encoder_for(self.answer)
        except (TypeError, NameError) as error:
            message = f"{self.name}: the answer: {error}"
            raise ImproperlyConfigured(message) from error

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
        """Return the Controller's parts of a shape and then the handler's own.

        A class is used through its one instance; but an interceptor, like middleware,
        is made for what it wraps.
        """
        try:
            parts = [
                *getattr(self.controller, shape, ()),
                *getattr(self.source, shape, ()),
            ]
        except TypeError as error:
            message = f"{self.name}: {shape} is not a list: {error}."
            raise ImproperlyConfigured(message) from error
        if shape != "interceptors":
            parts = [the(part) if inspect.isclass(part) else part for part in parts]
        for part in parts:
            if not callable(part):
                message = f"{self.name}: {part!r} in {shape} is not callable."
                raise ImproperlyConfigured(message)
        return tuple(parts)

    @cached_property
    def function(self) -> Callable[..., Any]:
        """What is called with the message's arguments: bound, and in its transaction.

        The first look makes the Controller's instance, so that checks make none.
        """
        function = self.source
        if self.controller is not None:
            function = _bound(function, self.controller)
        if not self.atomic:
            return function
        if self.streams:
            return _atomic_stream(function, self.using)
        return transaction.atomic(using=self.using)(function)

    @property
    def subscriptions(self) -> list[Subscription]:
        """What a server must listen for to feed this handler."""
        return [Subscription(p, self.kind, self.wire_options) for p in self.patterns]

    def __repr__(self) -> str:
        return f"<Handler {self.name}>"


def _payload(mark: Mark) -> Any:
    """Return the type that a contract says, for a function that says none."""
    if mark.contract is None:
        return inspect.Parameter.empty
    return type(None) if mark.contract.data is None else mark.contract.data


def _is_any(kind: Any, kinds: Iterable[Any]) -> bool:
    return any(kind is one for one in kinds)


# --- instances --------------------------------------------------------------------

_instances: dict[type, Any] = {}


def the(cls: type) -> Any:
    """Return the one instance of a Controller, guard, pipe or filter."""
    if cls not in _instances:
        try:
            instance = cls()
        except TypeError as error:
            raise _unmakable(cls, error) from error
        _instances.setdefault(cls, instance)
    return _instances[cls]


def _refuse_unmakable(cls: type[Controller]) -> None:
    """Refuse a Controller that needs arguments, which nobody gives; make none."""
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise _unmakable(cls, error) from error


def _unmakable(cls: type, error: TypeError) -> ImproperlyConfigured:
    message = f"{cls.__module__}.{cls.__qualname__} cannot be made: {error}."
    return ImproperlyConfigured(message)


def _bound(function: Callable[..., Any], cls: type[Controller]) -> Callable[..., Any]:
    if cls.scope == "process":
        bound: Callable[..., Any] = function.__get__(the(cls), cls)
        return bound

    def fresh(*args: Any, **kwargs: Any) -> Any:
        return function(cls(), *args, **kwargs)

    return fresh


def _atomic_stream(
    function: Callable[..., Any], using: str | None
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with transaction.atomic(using=using):
            yield from function(*args, **kwargs)

    return run
