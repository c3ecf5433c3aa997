"""The options of a handler's decorator, read and checked."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec.inspect
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ..wire.seconds import seconds_of
from ..wire.text import suggestion
from .decorators import Mark, kind_name
from .payloads import is_native

_OF_THE_WIRE = ("qos", "queue")
_OF_REQUESTS = {"response"}


class Options(NamedTuple):
    """What a decorator says besides patterns; ``timeout`` in seconds."""

    servers: tuple[str, ...] | None
    atomic: bool
    using: str | None
    timeout: float | None
    uses_database: bool
    response: Any
    of_the_wire: dict[str, Any]

    @classmethod
    def of(cls, mark: Mark, handler: str) -> "Options":
        """Read the options of a mark.

        Raises ``ImproperlyConfigured`` that names the handler and the option.
        """
        given, path = mark.options, f"{handler}: {kind_name(mark.kind)}()"
        _refuse_unknown(given, mark.kind, path)
        values = {name: _read(given, name, path) for name in _READERS}
        if values["using"] is not None and not values["atomic"]:
            message = f"{path}: using={values['using']!r} is for atomic=True."
            raise ImproperlyConfigured(message)
        return cls(
            **{name: values[name] for name in cls._fields if name in values},
            of_the_wire={n: values[n] for n in _OF_THE_WIRE if values[n] is not None},
        )


def _refuse_unknown(given: Mapping[str, Any], kind: str, path: str) -> None:
    known = OPTIONS if kind == "request" else OPTIONS - _OF_REQUESTS
    for name in given:
        if name not in known:
            message = f"{path} has no option {name!r}; {suggestion(name, known)}"
            raise ImproperlyConfigured(message)


def _read(given: Mapping[str, Any], name: str, path: str) -> Any:
    default, read, what = _READERS[name]
    if name not in given or given[name] is default:
        return default
    try:
        return read(given[name])
    except (TypeError, ValueError, NameError) as error:
        message = f"{path}: {name}={given[name]!r} is not {what}."
        raise ImproperlyConfigured(message) from error


# --- readers: they return the value, or raise ValueError or TypeError ---------------


def _flag(value: Any) -> bool:
    if value is not True and value is not False:
        raise ValueError
    return bool(value)


def _servers(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError
    return names


def _alias(value: Any) -> str:
    if value not in list(connections):
        raise ValueError
    return str(value)


def _seconds(value: Any) -> float:
    return seconds_of(value, "timeout")


def _shape(value: Any) -> Any:
    if is_native(value) and not isinstance(value, type):
        msgspec.inspect.type_info(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


_READERS: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "servers": (None, _servers, "the name of a server, or several"),
    "atomic": (False, _flag, "True or False"),
    "using": (None, _alias, "an alias in DATABASES"),
    "timeout": (None, _seconds, "a number of seconds above 0"),
    "uses_database": (False, _flag, "True or False"),
    "response": (None, _shape, "a type, or a serializer"),
    "queue": (None, _text, "a text"),
    "qos": (None, _whole, "a whole number"),
}

OPTIONS = frozenset(_READERS)
"""Every option of ``message_pattern``."""
