"""What a function asks for: its parameters, with what their annotations say."""

import inspect
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from django.core.exceptions import ImproperlyConfigured

from ..wire.context import MessageContext
from .payloads.annotations import MISSING, alternatives, resolved

_UNRESOLVED = (NameError, AttributeError, SyntaxError, TypeError)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Payload:
    """One member of the payload: ``id: Annotated[int, Payload("id")]``.

    The key is taken literally: ``"a.b"`` is the member ``a.b``.
    """

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"Payload({self.key!r})"


class Inject:
    """What the package hands over: ``stock: Annotated[Client, Inject("STOCK")]``.

    ``source`` is the name of a client, or a factory: sync or async, called once per
    message however many ask for it, with the message's context if it has a required
    parameter (or one annotated with ``MessageContext``).
    """

    __slots__ = ("source",)

    def __init__(self, source: str | Callable[..., Any]) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"Inject({self.source!r})"


class Slot(NamedTuple):
    """A parameter: its annotation without our marker, and the marker."""

    name: str
    annotation: Any
    default: Any
    kind: Any
    marker: Payload | Inject | None

    @property
    def is_keyword(self) -> bool:
        """Whether it must be passed by name."""
        return self.kind is inspect.Parameter.KEYWORD_ONLY

    @property
    def is_context(self) -> bool:
        """Whether it asks for the message's context, of whatever wire."""
        return self.marker is None and is_context(self.annotation)


def is_context(annotation: Any) -> bool:
    """Whether an annotation is ``MessageContext``, of any wire, or may be."""
    return any(
        (get_origin(member) or member) is MessageContext
        for member in alternatives(annotation)
    )


def name_of(function: Any) -> str:
    """Return the name by which errors call a function."""
    name = getattr(function, "__qualname__", None) or repr(function)
    return f"{function.__module__}.{name}"


def slots_of(function: Callable[..., Any]) -> list[Slot]:
    """Return a function's parameters, except ``*args`` and ``**kwargs``.

    Raises ``ImproperlyConfigured`` for an annotation that cannot be resolved.
    """
    hints = resolve_hints(function)
    return [
        _slot(parameter, hints.get(name, MISSING))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in _VARIADIC
    ]


def is_variadic(function: Callable[..., Any]) -> bool:
    """Whether a function has ``*args`` or ``**kwargs``, which nothing fills.

    Of a decorated one counts what ``functools.wraps`` says to stand inside.
    """
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind in _VARIADIC for parameter in parameters)


def _slot(parameter: inspect.Parameter, hint: Any) -> Slot:
    annotation, marker = _unmarked(hint)
    return Slot(parameter.name, annotation, parameter.default, parameter.kind, marker)


def _unmarked(annotation: Any) -> tuple[Any, Payload | Inject | None]:
    """Take our marker out of an annotation, and leave any other metadata in."""
    annotation = resolved(annotation)
    if get_origin(annotation) is not Annotated:
        return annotation, None
    inner, *metadata = get_args(annotation)
    marker = next((m for m in metadata if isinstance(m, Payload | Inject)), None)
    rest = tuple(m for m in metadata if m is not marker)
    return (Annotated[(inner, *rest)] if rest else inner), marker


def resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations as objects, ``Annotated`` kept.

    Raises ``ImproperlyConfigured`` that names the parameter that cannot be resolved.
    """
    target = _annotated(function)
    try:
        return get_type_hints(target, include_extras=True)
    except _UNRESOLVED as error:
        raise ImproperlyConfigured(_unresolved(target, error)) from error


def _annotated(function: Any) -> Any:
    """Return where the annotations of a callable stand."""
    if inspect.isclass(function):
        return function.__init__
    if isinstance(function, partial):
        return _annotated(function.func)
    return function if inspect.isroutine(function) else type(function).__call__


def _unresolved(function: Any, error: Exception) -> str:
    name = next(filter(lambda n: _fails(function, n), _texts(function)), "return")
    what = "the return annotation" if name == "return" else f"parameter {name!r}"
    return (
        f"{name_of(function)}: the annotation of {what} cannot be resolved ({error}). "
        "It is read at run time: import the name at the top of the module, not under "
        "`if TYPE_CHECKING:`."
    )


def _texts(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # pragma: no cover - annotations are lazy there
        from annotationlib import Format, get_annotations

        return get_annotations(function, format=Format.STRING)
    texts: dict[str, Any] = function.__annotations__
    return texts


def _fails(function: Any, name: str) -> bool:
    alone = types.SimpleNamespace(__annotations__={name: _texts(function)[name]})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        get_type_hints(alone, globalns=names)
    except _UNRESOLVED:
        return True
    return False
