"""A value of settings, held against what it should be.

Every error is an ``ImproperlyConfigured`` that begins with the setting's path.
"""

import datetime
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from .wire.ranges import Range
from .wire.seconds import seconds_of
from .wire.secrets import masked, without_secrets
from .wire.text import suggestion


def check_keys(given: Any, known: Iterable[str], path: str) -> None:
    """Refuse keys that nobody reads; ``path`` begins the message."""
    if not isinstance(given, Mapping):
        message = f"{path}: {masked(given)} is not a dict."
        raise ImproperlyConfigured(message)
    for key in given:
        if key not in known:
            raise ImproperlyConfigured(unknown(f"{path}[{key!r}]", key, known))


def unknown(path: str, name: Any, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which one may have been meant."""
    return f"{path}: unknown; {suggestion(name, known)}"


def imported(item: Any, path: str) -> Any:
    """Import what a dotted path names; anything else is returned as it is."""
    if not isinstance(item, str):
        return item
    try:
        return import_string(item)
    except ImportError as error:
        reason = without_secrets(str(error), None)
        message = f"{path}: cannot import {masked(item)}: {reason}"
        raise ImproperlyConfigured(message) from error


def items(given: Any, path: str) -> tuple[Any, ...]:
    """Return the items of a list; a lone text, whose items are letters, is refused."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        message = f"{path}: {masked(given)} is not a list."
        raise ImproperlyConfigured(message)
    return tuple(given)


def number(value: Any, path: str, *, zero: bool = False) -> float:
    """Return a time in seconds; ``zero`` says whether it may be 0."""
    try:
        return seconds_of(value, path, zero=zero)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(str(error)) from None


def whole(value: Any, path: str) -> int:
    """Return a count, which is at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = f"{path}: {masked(value)} is not a whole number over 0."
        raise ImproperlyConfigured(message)
    return value


# --- by annotation ---------------------------------------------------------------


class _Mismatch(Exception):
    """A value is not what its annotation says."""


def read(value: Any, hint: Any, path: str, name: str = "") -> Any:
    """Return a value as its annotation wants it, or raise ``ImproperlyConfigured``."""
    try:
        return _read(value, hint, path)
    except _Mismatch:
        kind = type(value).__name__
        message = f"{path}: expected {_name(hint)}, not {masked(value, name)} ({kind})."
        raise ImproperlyConfigured(message) from None


def _read(value: Any, hint: Any, path: str) -> Any:
    return _kind_of(hint).read(value, hint, path)


def _name(hint: Any) -> str:
    return _kind_of(hint).name(hint)


def _if(value: Any, *, accepted: bool) -> Any:
    if not accepted:
        raise _Mismatch
    return value


def _read_wrapped(value: Any, hint: Any, path: str) -> Any:
    inner, *metadata = get_args(hint)
    found = _read(value, inner, path)
    for one in metadata:
        if isinstance(one, Range) and not one.admits(found):
            message = f"{path}: {found} is not {one}."
            raise ImproperlyConfigured(message)
    return found


def _read_union(value: Any, hint: Any, path: str) -> Any:
    members = get_args(hint)
    if value is None and type(None) in members:
        return None
    for member in members:
        try:
            return _read(value, member, path)
        except _Mismatch:
            continue
    raise _Mismatch


def _read_literal(value: Any, hint: Any, _: str) -> Any:
    return _if(value, accepted=value in get_args(hint))


def _read_typed_dict(value: Any, hint: Any, path: str) -> dict[str, Any]:
    _if(value, accepted=isinstance(value, Mapping))
    hints = get_type_hints(hint, include_extras=True)
    check_keys(value, hints, path)
    for key in sorted(hint.__required_keys__ - value.keys()):
        message = f"{path}[{key!r}]: missing; it must be given."
        raise ImproperlyConfigured(message)
    return {
        key: read(item, hints[key], f"{path}[{key!r}]", key)
        for key, item in value.items()
    }


def _read_class(value: Any, hint: Any, path: str) -> Any:
    cls = imported(value, path)
    bound = get_origin(get_args(hint)[0]) or get_args(hint)[0]
    bound = bound if _is_class(bound, None) else object
    return _if(cls, accepted=isinstance(cls, type) and issubclass(cls, bound))


def _read_callable(value: Any, _: Any, path: str) -> Any:
    """Take a function, or an object of a class of one's own: Nest's seams are such."""
    part = imported(value, path)
    return _if(part, accepted=callable(part) or type(part).__module__ != "builtins")


def _read_mapping(value: Any, hint: Any, path: str) -> Any:
    _if(value, accepted=isinstance(value, get_origin(hint)))
    key_hint, item_hint = get_args(hint)
    return {
        _read(key, key_hint, path): _read(item, item_hint, path)
        for key, item in value.items()
    }


def _read_collection(value: Any, hint: Any, path: str) -> Any:
    is_text = isinstance(value, str | bytes)
    _if(value, accepted=isinstance(value, get_origin(hint)) and not is_text)
    args = get_args(hint)
    if get_origin(hint) is tuple and args[-1] is not ...:
        _if(value, accepted=len(value) == len(args))
        return tuple(map(_read, value, args, [path] * len(args)))
    return type(value)(_read(item, args[0], path) for item in value)


def _read_float(value: Any, _: Any, path: str) -> Any:
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return value if isinstance(value, float) else _read_int(value, _, path)


def _read_int(value: Any, *_: Any) -> Any:
    return _if(value, accepted=isinstance(value, int) and not isinstance(value, bool))


def _read_str(value: Any, *_: Any) -> Any:
    if isinstance(value, os.PathLike | Promise):
        return str(value)
    return _if(value, accepted=isinstance(value, str))


def _read_instance(value: Any, hint: Any, _: str) -> Any:
    return _if(value, accepted=isinstance(value, hint))


def _read_anything(value: Any, *_: Any) -> Any:
    return value


class _Kind(NamedTuple):
    """How annotations of one kind are recognised, read and named in a message."""

    fits: Callable[[Any, Any], bool]
    read: Callable[[Any, Any, str], Any]
    name: Callable[[Any], str]


def _is_class(hint: Any, _: Any) -> bool:
    is_protocol = getattr(hint, "_is_protocol", False)
    return isinstance(hint, type) and hint is not Any and not is_protocol


def _text(hint: Any) -> str:
    return str(hint).replace("collections.abc.", "").replace("typing.", "")


_KINDS = (
    _Kind(
        lambda _, origin: origin in {Annotated, NotRequired, Required},
        _read_wrapped,
        lambda hint: _name(get_args(hint)[0]),
    ),
    _Kind(
        lambda _, origin: origin in {Union, types.UnionType},
        _read_union,
        lambda hint: " or ".join(map(_name, get_args(hint))),
    ),
    _Kind(
        lambda _, origin: origin is Literal,
        _read_literal,
        lambda hint: " or ".join(map(repr, get_args(hint))),
    ),
    _Kind(lambda hint, _: is_typeddict(hint), _read_typed_dict, lambda _: "dict"),
    _Kind(
        lambda _, origin: origin is type,
        _read_class,
        lambda hint: f"a subclass of {_name(get_args(hint)[0])}, or its dotted path",
    ),
    _Kind(
        lambda hint, origin: Callable in (hint, origin),
        _read_callable,
        lambda _: "a callable, or its dotted path",
    ),
    _Kind(
        lambda _, origin: isinstance(origin, type) and issubclass(origin, Mapping),
        _read_mapping,
        _text,
    ),
    _Kind(
        lambda _, origin: isinstance(origin, type) and issubclass(origin, Collection),
        _read_collection,
        _text,
    ),
    _Kind(
        lambda hint, _: hint is float,
        _read_float,
        lambda _: "float (a number; a time in seconds or as a timedelta)",
    ),
    _Kind(lambda hint, _: hint is int, _read_int, lambda _: "int"),
    _Kind(lambda hint, _: hint is str, _read_str, lambda _: "str"),
    _Kind(
        lambda hint, _: hint is type(None),
        _read_instance,
        lambda _: "None",
    ),
    _Kind(_is_class, _read_instance, lambda hint: str(hint.__name__)),
)
_ANYTHING = _Kind(lambda *_: True, _read_anything, _text)


def _kind_of(hint: Any) -> _Kind:
    origin = get_origin(hint)
    return next((kind for kind in _KINDS if kind.fits(hint, origin)), _ANYTHING)
