"""How a handler is called with a message: read from its signature, decided once."""

from collections.abc import Callable, Iterable, Sequence
from inspect import formatannotation
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .bindings import AsyncBind, Bind, Parameter, Source, abind_for, bind_for, refuse
from .injection import Part, ResolveClient, cache_of, inject, inject_plan, provider_of
from .payloads import may_block, reader_for
from .payloads.annotations import MISSING
from .payloads.members import Member, members_reader
from .signatures import Inject, Payload, Slot, is_variadic, name_of, slots_of

__all__ = ["Inject", "Parameter", "Payload", "Plan", "inject", "inject_plan", "plan"]


class Plan(NamedTuple):
    """How to call a handler.

    ``bind(data, context)`` returns ``(args, kwargs)``; ``data`` is the payload as it
    stands in the message: encoded, a value, or ``UNSET``. It raises
    :class:`~django_microservices.dispatch.payloads.PayloadError`.

    ``await abind(data, context, run)`` is its twin for the event loop, and the only one
    where ``is_async``: ``await run(function, *args)`` is how each sync step is called
    that may use the database; without ``run`` it is just called. ``may_block`` says
    that there is such a step, so that ``bind`` belongs on a thread.
    """

    bind: Bind
    abind: AsyncBind
    is_async: bool
    may_block: bool
    parameters: tuple[Parameter, ...]


def plan(
    function: Callable[..., Any],
    *,
    resolve_client: ResolveClient,
    skip_self: bool = False,
    pipes: Iterable[Any] = (),
    payload: Any = MISSING,
) -> Plan:
    """Return how ``function`` is called; a pipe is ``pipe(value, parameter)``.

    ``payload`` is the type of one that the function does not annotate. Raises
    ``ImproperlyConfigured`` that names the handler, the parameter and the cure.
    """
    slots = _filled(function, slots_of(function)[skip_self:])
    slots = [_typed(slot, payload) for slot in slots]
    members = _members(function, slots)
    piped = tuple(Part.of(pipe) for pipe in pipes)
    sources = _sources(function, slots, resolve_client, piped)
    parts = [members, *(part for source in sources for part in source.parts)]
    is_async = any(part.is_async for part in parts)
    return Plan(
        refuse if is_async else bind_for(sources, members),
        abind_for(sources, members),
        is_async,
        any(part.may_block for part in parts),
        tuple(source.parameter for source in sources if source.parameter),
    )


def _filled(function: Any, slots: list[Slot]) -> list[Slot]:
    """Return the parameters that are filled, having refused what cannot be."""
    if not slots and is_variadic(function):
        message = (
            f"{name_of(function)}: nothing fills *args and **kwargs: annotate a "
            "payload parameter, or give the decorator that made them functools.wraps."
        )
        raise ImproperlyConfigured(message)
    unmarked = [slot for slot in slots if slot.marker is None and not slot.is_context]
    payloads = [slot.name for slot in unmarked if not slot.is_keyword]
    if len(payloads) > 1:
        message = (
            f"{name_of(function)}: parameter {payloads[1]!r} would be a second payload "
            f"beside {payloads[0]!r}: annotate it with MessageContext, "
            'Annotated[..., Payload("key")] or Annotated[..., Inject(...)].'
        )
        raise ImproperlyConfigured(message)
    named = {slot.name: slot.default for slot in unmarked if slot.is_keyword}
    for name, default in named.items():
        if default is MISSING:
            message = (
                f"{name_of(function)}: nothing fills the keyword-only parameter "
                f'{name!r}: annotate it with Annotated[..., Payload("key")] or '
                "Annotated[..., Inject(...)], or give it a default."
            )
            raise ImproperlyConfigured(message)
    return [slot for slot in slots if slot.name not in named]


def _typed(slot: Slot, payload: Any) -> Slot:
    is_untyped = slot.marker is None and slot.annotation is MISSING
    return slot._replace(annotation=payload) if is_untyped else slot


def _members(function: Any, slots: list[Slot]) -> Part:
    """Return what reads all the members that the parameters ask for, together."""
    members: dict[str, Member] = {}
    for slot in slots:
        if not isinstance(slot.marker, Payload):
            continue
        key = slot.marker.key
        if key in members:
            message = (
                f"{name_of(function)}: parameter {slot.name!r} takes the member "
                f"{key!r} of the payload, as another parameter does already."
            )
            raise ImproperlyConfigured(message)
        members[key] = Member(key, slot.annotation, slot.default)
        _reader(function, slot)
    if not members:
        return Part(_no_members)
    blocks = any(may_block(member.annotation) for member in members.values())
    return Part(members_reader(tuple(members.values())), may_block=blocks)


def _no_members(data: Any) -> tuple[()]:  # noqa: ARG001
    return ()


def _reader(function: Any, slot: Slot) -> Callable[[Any], Any]:
    """Return what reads a parameter's payload; say whose type it is that none reads."""
    try:
        return reader_for(slot.annotation, slot.default)
    except (TypeError, NameError) as error:
        message = (
            f"{name_of(function)}: parameter {slot.name!r}: "
            f"{formatannotation(slot.annotation)} cannot be a payload: {error}"
        )
        raise ImproperlyConfigured(message) from error


def _sources(
    function: Any,
    slots: Sequence[Slot],
    resolve_client: ResolveClient,
    pipes: tuple[Part, ...],
) -> list[Source]:
    sources, place = [], 0
    for slot in slots:
        if isinstance(slot.marker, Payload):
            source = _key_source(slot, slot.marker.key, place, pipes)
            place += 1
        elif slot.marker is None and not slot.is_context:
            source = _payload_source(function, slot, pipes)
        else:
            source = _provided_source(slot, provider_of(function, slot, resolve_client))
        sources.append(source)
    return sources


def _key_source(slot: Slot, key: str, place: int, pipes: tuple[Part, ...]) -> Source:
    def pick(data: Any, context: Any, members: Any) -> Any:  # noqa: ARG001
        return members[place]

    parameter = Parameter(slot.name, slot.annotation, "key", key)
    return Source(slot.name, Part(pick), "key", slot.is_keyword, parameter, pipes)


def _payload_source(function: Any, slot: Slot, pipes: tuple[Part, ...]) -> Source:
    read = _reader(function, slot)

    def whole(data: Any, context: Any, members: Any) -> Any:  # noqa: ARG001
        return read(data)

    part = Part(whole, may_block=may_block(slot.annotation))
    parameter = Parameter(slot.name, slot.annotation, "payload")
    return Source(slot.name, part, "payload", False, parameter, pipes, read)


def _provided_source(slot: Slot, provider: Part) -> Source:
    make = provider.call

    def provided(data: Any, context: Any, members: Any) -> Any:  # noqa: ARG001
        return make(context, cache_of(context))

    shape = "context" if slot.is_context else "provided"
    return Source(slot.name, provider._replace(call=provided), shape, slot.is_keyword)
