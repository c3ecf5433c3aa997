"""Checks of handlers and their patterns."""

from collections.abc import Iterator
from itertools import combinations

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004

from .. import conf
from ..dispatch.decorators import marked_functions, marks_of
from ..dispatch.handlers import Handler
from ..dispatch.payloads import is_native, unencodable_reason
from ..dispatch.registry import HANDLERS
from ..dispatch.signatures import Inject, slots_of
from ..endpoints.config import ServerConfig
from ..schema import unknown
from ..wire.patterns import RESERVED_PREFIX, is_reserved, unreachable_reason
from . import TAG
from .found import Found


def duplicates(found: Found) -> Iterator[CheckMessage]:
    """E003."""
    for name, config in found.servers.items():
        owners: dict[str, Handler] = {}
        for route, handler in _requests(config):
            owner = owners.setdefault(route, handler)
            if owner is not handler:
                yield Error(
                    f"Server {name!r}: the request {route!r} is answered by both "
                    f"{_name(owner)} and {_name(handler)}.",
                    hint="Only the first answers. Rename one, or use servers=.",
                    id=f"{TAG}.E003",
                )


def unknown_servers(found: Found) -> Iterator[CheckMessage]:
    """E004."""
    known = found.names
    bound = {(h.name, name) for h in conf.discovery.all() for name in h.servers or ()}
    for handler, name in sorted(bound):
        if name not in known:
            text = unknown(f"{handler}: servers={name!r}", name, known)
            yield Error(text, id=f"{TAG}.E004")


def unknown_clients(found: Found) -> Iterator[CheckMessage]:
    """E009."""
    for handler in found.handlers:
        for slot in slots_of(handler.source):
            name = slot.marker.source if isinstance(slot.marker, Inject) else None
            if isinstance(name, str) and name not in found.client_names:
                text = unknown(
                    f"{_name(handler)}: parameter {slot.name!r}: {slot.marker!r}",
                    name,
                    found.client_names,
                )
                yield Error(text, id=f"{TAG}.E009")


def reserved_patterns(found: Found) -> Iterator[CheckMessage]:
    """E005."""
    for handler in found.handlers:
        for pattern in handler.patterns:
            if is_reserved(pattern.route):
                yield Error(
                    f"{_name(handler)}: {pattern.route!r} begins with "
                    f"{RESERVED_PREFIX!r}, which is reserved.",
                    hint="Give the pattern another name.",
                    id=f"{TAG}.E005",
                )


def unencodable_answers(found: Found) -> Iterator[CheckMessage]:
    """E006."""
    for handler in found.handlers:
        answer = handler.answer
        reason = unencodable_reason(answer) if is_native(answer) else None
        if reason is not None:
            yield Error(f"{_name(handler)}: {reason}", id=f"{TAG}.E006")


def unreachable_patterns(found: Found) -> Iterator[CheckMessage]:
    """E007."""
    for handler in found.handlers:
        for pattern in handler.patterns:
            value = pattern.value
            reason = unreachable_reason(value) if isinstance(value, str) else None
            if reason is not None:
                yield Error(f"{_name(handler)}: {reason}", id=f"{TAG}.E007")


def overlaps(found: Found) -> Iterator[CheckMessage]:
    """W001; an exact pattern inside of a wildcard is clear, for it goes first."""
    for name, config in found.servers.items():
        grammar = config.transport.grammar
        wild = sorted({r for r, _ in _requests(config) if grammar.is_wildcard(r)})
        for one, other in combinations(wild, 2):
            if grammar.overlaps(one, other):
                yield Warning(
                    f"Server {name!r}: the requests {one!r} and {other!r} overlap.",
                    hint="What both match goes to the more specific of the two.",
                    id=f"{TAG}.W001",
                )


def strays(found: Found) -> Iterator[CheckMessage]:
    """W002; silent while discovery itself fails."""
    if any(message.is_serious() for message in found.messages):
        return
    served = {id(handler.mark) for handler in conf.discovery.all()}
    for function in marked_functions():
        if all(id(mark) in served for mark in marks_of(function)):
            continue
        if function.__module__ in conf.discovery.modules:
            why, hint = _HIDDEN
        elif _is_in_handlers(function.__module__):  # left out by HANDLERS
            continue
        else:
            why, hint = _ELSEWHERE
        yield Warning(
            f"{function.__module__}.{function.__qualname__} is marked as a handler, "
            f"but {why}: no server finds it.",
            hint=hint,
            id=f"{TAG}.W002",
        )


_ELSEWHERE = (
    f"stands outside of {HANDLERS}.py",
    f"Move it to the {HANDLERS}.py of an app, or name its module in HANDLERS.",
)
_HIDDEN = (
    "is neither a function of its module nor a method of a Controller there",
    "Derive its class from Controller, or give the decorator above functools.wraps.",
)


def _is_in_handlers(module: str) -> bool:
    app = apps.get_containing_app_config(module)
    return app is not None and f"{module}.".startswith(f"{app.name}.{HANDLERS}.")


def _requests(config: ServerConfig) -> Iterator[tuple[str, Handler]]:
    for handler in config.handlers:
        if handler.kind == "request":
            for pattern in handler.patterns:
                yield pattern.route, handler


def _name(handler: Handler) -> str:
    """Name a handler, and the Controller that inherited it."""
    owner = handler.controller
    if owner is None or handler.name.startswith(
        f"{owner.__module__}.{owner.__qualname__}."
    ):
        return handler.name
    return f"{handler.name} ({owner.__module__}.{owner.__qualname__})"


CHECKS = (
    duplicates,
    unknown_servers,
    unknown_clients,
    reserved_patterns,
    unencodable_answers,
    unreachable_patterns,
    overlaps,
    strays,
)
