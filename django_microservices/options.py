"""OPTIONS of a transport, held against its constructor: the signature is the schema.

Where a constructor takes ``**options`` too, those of the class above count with its
own: what two wires have in common is written once.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

from django.core.exceptions import ImproperlyConfigured

from .schema import check_keys, imported, read
from .transports.base import Transport
from .wire.secrets import masked, without_secrets


def build_transport(
    given: Any, options: Any, path: str, end: str, service: Callable[[], str]
) -> Transport:
    """Make the transport that ``TRANSPORT`` and ``OPTIONS`` name.

    ``end`` is "server" or "client". ``service()`` is the consumer group, where the
    transport has the option ``group`` and is not given one.
    """
    if isinstance(given, Transport):
        if options:
            message = f"{path}['OPTIONS']: TRANSPORT is an object and has its options."
            raise ImproperlyConfigured(message)
        return given
    cls = transport_class(given, path)
    checked = check_options(cls, options, f"{path}['OPTIONS']", end)
    if checked.get("group") is None and "group" in options_of(cls, end):
        checked["group"] = service()
    try:
        return cls(**checked)
    except Exception as error:  # noqa: BLE001 - anybody may write a transport
        said = _said(error)
        text = without_secrets(said, options)
        # A traceback would show what the text above does not.
        cause = error if text == said else None
        message = f"{path}['OPTIONS']: {text}"
        raise ImproperlyConfigured(message) from cause


def _said(error: Exception) -> str:
    """Return what a constructor said; one that did not mean to is named."""
    if isinstance(error, ImproperlyConfigured | TypeError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def transport_class(given: Any, path: str) -> type[Transport]:
    """Import a transport's class."""
    cls = imported(given, f"{path}['TRANSPORT']")
    if not (isinstance(cls, type) and issubclass(cls, Transport)):
        message = f"{path}['TRANSPORT']: {masked(given)} is not a Transport."
        raise ImproperlyConfigured(message)
    return cls


def check_options(
    cls: type[Transport], options: Any, path: str, end: str
) -> dict[str, Any]:
    """Hold ``OPTIONS`` against the signature of the class; return what it takes."""
    foreign = _foreign(cls, end)
    for name in options if isinstance(options, Mapping) else ():
        if name in foreign:
            other = "client" if end == "server" else "server"
            message = f"{path}[{name!r}]: this option is for a {other} only."
            raise ImproperlyConfigured(message)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters_of(cls))
    check_keys(options, options if takes_any else options_of(cls, end), path)
    _check_address(options, path)
    return check_types(cls, options, path)


def _check_address(options: Mapping[str, Any], path: str) -> None:
    """Refuse two addresses, of which one would be ignored, and one that is empty.

    An empty host is every address of this one to a listener, which nobody means by it.
    """
    for name in ("host", "port"):
        if name in options and options.get("url") is not None:
            message = f"{path}[{name!r}]: 'url' says it: give one of the two."
            raise ImproperlyConfigured(message)
    if options.get("host") == "":
        message = f"{path}['host']: it is empty; '0.0.0.0' is every address."
        raise ImproperlyConfigured(message)


def options_of(cls: type[Transport], end: str) -> set[str]:
    """Return the names of the options that one end of a transport has."""
    names = {p.name for p in parameters_of(cls) if p.kind is p.KEYWORD_ONLY}
    return names - _foreign(cls, end)


def parameters_of(cls: type[Transport]) -> list[inspect.Parameter]:
    """Return what a transport takes; one is a ``**`` where it takes anything."""
    found: dict[str, inspect.Parameter] = {}
    for constructor in _constructors(cls):
        named = {n: p for n, p in found.items() if p.kind is not p.VAR_KEYWORD}
        found = {**inspect.signature(constructor).parameters, **named}
    found.pop("self", None)
    return list(found.values())


def _constructors(cls: type[Transport]) -> Iterator[Callable[..., None]]:
    """Yield what the options reach: the constructors, each with what it hands on."""
    for one in cls.__mro__[:-1]:
        constructor = vars(one).get("__init__")
        if constructor is not None:
            yield constructor
            kinds = {p.kind for p in inspect.signature(constructor).parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return


def _foreign(cls: type[Transport], end: str) -> frozenset[str]:
    return cls.client_only if end == "server" else cls.server_only


def check_types(
    cls: type[Transport], options: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Hold each value against its annotation; return the values, imported where due."""
    hints: dict[str, Any] = {}
    for constructor in _constructors(cls):
        hints = _hints_of(constructor, path) | hints
    return {
        name: read(value, hints.get(name, Any), f"{path}[{name!r}]", name)
        for name, value in options.items()
    }


def _hints_of(constructor: Callable[..., None], path: str) -> dict[str, Any]:
    try:
        return get_type_hints(constructor, include_extras=True)
    except NameError as error:
        message = (
            f"{path}: the annotations of {constructor.__qualname__} cannot be "
            f"resolved ({error}). Import the name at run time, not under TYPE_CHECKING."
        )
        raise ImproperlyConfigured(message) from error
