"""What ``Inject`` hands over: to handlers, and through ``inject`` to any function."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from ..concurrency.adapt import to_async
from ..wire.context import MessageContext, current_context
from .modes import is_async
from .payloads.annotations import MISSING
from .signatures import Inject, Slot, name_of, slots_of

Context = MessageContext[Any] | None
ResolveClient = Callable[[str], Any]
Cache = dict[Any, Any]
Run = Callable[..., Awaitable[Any]]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
F = TypeVar("F", bound=Callable[..., Any])

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class Part(NamedTuple):
    """One step on the way to a value: called, awaited, or called on a thread."""

    call: Callable[..., Any]
    is_async: bool = False
    may_block: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Part":
        """Make the step that a user's function is: a sync one may use the database."""
        awaits = is_async(function)
        return cls(function, awaits, not awaits)

    async def acall(self, run: Run, *args: Any) -> Any:
        """Return the value; what may block goes through ``run``."""
        if self.is_async:
            return await self.call(*args)
        return await run(self.call, *args) if self.may_block else self.call(*args)


async def on_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a sync step where Django runs thread-sensitive code."""
    return await to_async(function)(*args)


# --- providers: called with the context and the cache of this message -----------------


def cache_of(context: Context) -> Cache:
    """Return what factories made for this message; without one, an empty cache."""
    if context is None:
        return {}
    cache: Cache = context.__dict__.setdefault("_injected", {})
    return cache


def provider_of(function: Any, slot: Slot, resolve_client: ResolveClient) -> Part:
    """Return what fills a parameter that asks for the context or an ``Inject``."""
    if not isinstance(slot.marker, Inject):
        return Part(_context)
    source: Any = slot.marker.source
    if isinstance(source, str):
        client = resolve_client(source)
        return Part(lambda context, cache: client)  # noqa: ARG005
    if not callable(source):
        message = (
            f"{name_of(function)}: parameter {slot.name!r}: {slot.marker!r} is neither "
            "the name of a client nor a factory."
        )
        raise ImproperlyConfigured(message)
    part = Part.of(source)
    make = _amaker if part.is_async else _maker
    return part._replace(call=make(source, _caller(source)))


def _context(context: Context, cache: Cache) -> Context:  # noqa: ARG001
    return context


def _maker(factory: Any, call: Callable[[Context], Any]) -> Callable[..., Any]:
    def make(context: Context, cache: Cache) -> Any:
        if factory not in cache:
            cache[factory] = call(context)
        return cache[factory]

    return make


def _amaker(factory: Any, call: Callable[[Context], Any]) -> Callable[..., Any]:
    async def make(context: Context, cache: Cache) -> Any:
        if factory not in cache:
            cache[factory] = await call(context)
        return cache[factory]

    return make


def _caller(factory: Any) -> Callable[[Context], Any]:
    """Return what calls a factory with what it asks for: the context or nothing."""
    try:
        slots = slots_of(factory)
    except ValueError:  # a builtin class that tells no signature
        slots = []
    required = [slot for slot in slots if slot.default is MISSING]
    if len(required) > 1 or any(slot.is_keyword for slot in required):
        message = (
            f"{name_of(factory)}: a factory of Inject is called with the message's "
            "context or with nothing, and requires "
            f"{', '.join(slot.name for slot in required)}."
        )
        raise ImproperlyConfigured(message)
    if required:
        return functools.partial(_call_in_message, factory)
    if slots and slots[0].is_context:
        return lambda context: factory(context) if context is not None else factory()
    return lambda _: factory()


def _call_in_message(factory: Any, context: Context) -> Any:
    if context is None:
        message = (
            f"{name_of(factory)}() asks for the message's context, and no message is "
            "being handled here."
        )
        raise LookupError(message)
    return factory(context)


# --- any function -------------------------------------------------------------------


class InjectPlan:
    """How the injected parameters of one function are filled, decided once.

    ``fill(args, kwargs)`` returns what to call the function with; what the caller
    passes by name is left alone. ``afill`` is its twin for async functions, the only
    one where ``is_async``. ``signature`` is the function's without what is injected.
    """

    def __init__(self, function: Any, resolve_client: ResolveClient) -> None:
        slots = slots_of(function)
        self.parts = {
            slot.name: provider_of(function, slot, resolve_client)
            for slot in slots
            if isinstance(slot.marker, Inject)
        }
        self.contexts = [slot.name for slot in slots if slot.is_context]
        self.is_async = any(part.is_async for part in self.parts.values())
        self._read_signature(function)

    def _read_signature(self, function: Any) -> None:
        whole = inspect.signature(function)
        parameters = list(whole.parameters.values())
        kept = [p for p in parameters if p.name not in self.parts]
        self.signature = whole.replace(parameters=kept)
        names = [p.name for p in parameters if p.kind in _POSITIONAL]
        self.names = [name for name in names if name not in self.parts]
        ours = (place for place, name in enumerate(names) if name in self.parts)
        self.first = next(ours, len(names))

    def __bool__(self) -> bool:
        return bool(self.parts or self.contexts)

    def fill(self, args: Any, kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments with what the caller left to us."""
        context = current_context()
        args, kwargs = self._open(args, kwargs, context)
        cache = cache_of(context)
        for name, part in self.parts.items():
            if name not in kwargs:
                kwargs[name] = part.call(context, cache)
        return args, kwargs

    async def afill(self, args: Any, kwargs: dict[str, Any]) -> Arguments:
        """Return what :meth:`fill` does, awaiting async factories."""
        context = current_context()
        args, kwargs = self._open(args, kwargs, context)
        cache = cache_of(context)
        for name, part in self.parts.items():
            if name not in kwargs:
                kwargs[name] = await part.acall(on_a_thread, context, cache)
        return args, kwargs

    def _open(self, args: Any, kwargs: dict[str, Any], context: Context) -> Arguments:
        """Make room for what is injected, and put the context where it is not passed.

        What the caller passes by place moves past the first injected parameter.
        """
        if len(self.names) >= len(args) > self.first:
            names = self.names[self.first :]
            moved = dict(zip(names, args[self.first :], strict=False))
            if not moved.keys() & kwargs.keys():
                args, kwargs = args[: self.first], {**kwargs, **moved}
        if context is not None:
            for name in self.contexts:
                if name not in self.names[: len(args)]:
                    kwargs.setdefault(name, context)
        return args, kwargs


def inject_plan(function: Any, resolve_client: ResolveClient) -> InjectPlan:
    """Return how the injected parameters of ``function`` are filled.

    Raises ``ImproperlyConfigured`` where an annotation or a factory cannot be used.
    """
    plan = InjectPlan(function, resolve_client)
    if plan.is_async and not iscoroutinefunction(function):
        names = [name for name, part in plan.parts.items() if part.is_async]
        message = (
            f"{name_of(function)}: the factory of parameter {names[0]!r} is async, and "
            "the function is not: make it an async function, or the factory a sync one."
        )
        raise ImproperlyConfigured(message)
    return plan


def inject(target: F, resolve_client: ResolveClient) -> F:
    """Return ``target`` with its injected parameters filled at every call.

    A function is wrapped. Of a class the methods are: a View's for HTTP verbs, any
    other class's own. What ``as_view()`` returned stays, decorators and all, and the
    class that it makes is changed.
    """
    cls = target if inspect.isclass(target) else getattr(target, "view_class", None)
    if cls is None:
        wrapped: F = _inject_function(target, resolve_client)
        return wrapped
    for name in getattr(cls, "http_method_names", None) or list(vars(cls)):
        method = getattr(cls, name, None)
        if inspect.isfunction(method):
            setattr(cls, name, _inject_function(method, resolve_client))
    return target


def _inject_function(function: Any, resolve_client: ResolveClient) -> Any:
    plan = inject_plan(function, resolve_client)
    if not plan:
        return function
    wrapper = _async_wrapper if iscoroutinefunction(function) else _wrapper
    wrapped = functools.wraps(function)(wrapper(function, plan))
    wrapped.__signature__ = plan.signature  # type: ignore[attr-defined]
    return wrapped


def _wrapper(function: Any, plan: InjectPlan) -> Callable[..., Any]:
    fill = plan.fill

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = fill(args, kwargs)
        return function(*args, **kwargs)

    return call


def _async_wrapper(function: Any, plan: InjectPlan) -> Callable[..., Any]:
    afill = plan.afill

    async def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = await afill(args, kwargs)
        return await function(*args, **kwargs)

    return call
