"""Reading annotations: what stands in them, and what no payload can be."""

from abc import ABCMeta
from collections.abc import Iterator
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec.inspect
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager
from django.utils.functional import Promise

from ...wire.messages import UNSET, UnsetType

MISSING = Parameter.empty
WITH_FIELDS = (msgspec.inspect.StructType, msgspec.inspect.DataclassType)
"""What msgspec calls types with fields: attrs classes are dataclasses to it."""

_UNIONS = (Union, UnionType)
_ANYTHING = (Any, object, MISSING)


def resolved(annotation: Any) -> Any:
    """Return what a ``type X = ...`` statement stands for, or the annotation."""
    return getattr(annotation, "__value__", annotation)


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or the annotation, without their metadata."""
    annotation = resolved(annotation)
    if get_origin(annotation) is Annotated:
        yield from alternatives(annotation.__origin__)
    elif get_origin(annotation) in _UNIONS:
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield everything that an annotation names, its metadata included."""
    annotation = resolved(annotation)
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def nodes_of(info: Any) -> Iterator[msgspec.inspect.Type]:
    """Yield everything that msgspec's view of a type consists of, each once."""
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif (
            isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field)
            and id(node) not in seen
        ):
            seen.add(id(node))
            waiting.extend(getattr(node, name) for name in node.__struct_fields__)
            if isinstance(node, msgspec.inspect.Type):
                yield node


def is_plain(annotation: Any) -> bool:
    """Whether an annotation asks for plain Python: there is none, or it is ``Any``."""
    return annotation in _ANYTHING


def admits_unset(annotation: Any) -> bool:
    """Whether a missing payload may be handed over as ``UNSET``."""
    return any(
        is_plain(member) or member is UnsetType for member in alternatives(annotation)
    )


def default_of(annotation: Any, default: Any) -> Any:
    """Return what stands for a missing payload or member, or ``MISSING``."""
    if default is MISSING and admits_unset(annotation):
        return UNSET
    return default


def without_unset(annotation: Any) -> Any:
    """Return the annotation of the payloads that are not missing."""
    annotation = resolved(annotation)
    if get_origin(annotation) is Annotated:
        inner = without_unset(annotation.__origin__)
        return Annotated[(inner, *annotation.__metadata__)]
    if get_origin(annotation) in _UNIONS:
        rest = tuple(m for m in get_args(annotation) if m is not UnsetType)
        return Union[rest]  # noqa: UP007 - as many as there are
    return annotation


def is_subclass(annotation: Any, *bases: type) -> bool:
    """Whether an annotation is a class that derives from one of ``bases``."""
    return isinstance(annotation, type) and issubclass(annotation, bases)


def _named_in(annotation: Any) -> Iterator[Any]:
    """Yield every type that an annotation names, without metadata."""
    for member in alternatives(annotation):
        yield member
        for part in get_args(member):
            yield from _named_in(part)


def unencodable_reason(annotation: Any) -> str | None:
    """Say why answers of this type cannot travel, or ``None`` where they can."""
    for part in _named_in(annotation):
        origin = get_origin(part) or part
        if is_subclass(origin, Model):
            return (
                f"{origin.__name__} is a model, and a bare instance cannot travel: "
                "annotate a msgspec.Struct, dataclass or pydantic model with the "
                "fields to send, or name a serializer with response=."
            )
        if is_subclass(origin, QuerySet, BaseManager):
            return (
                "A QuerySet cannot travel: annotate list[...] of a msgspec.Struct, "
                "dataclass or pydantic model with the fields to send, or name a "
                "serializer with response=."
            )
        if isinstance(origin, type) and _says_nothing(origin):
            return (
                f"{origin.__module__}.{origin.__qualname__} cannot travel as JSON: "
                "annotate builtins, a dataclass, an attrs class or a msgspec.Struct, "
                "or name a serializer with response=."
            )
    return None


_BUILTINS = (str, bytes, int, float, dict, list, tuple, set, frozenset, Promise)


def _says_nothing(cls: type) -> bool:
    """Whether a class has no fields that msgspec knows, nor has any that derives of it.

    An abstract class or a Protocol stands for others.
    """
    if cls is object or isinstance(cls, ABCMeta) or issubclass(cls, _BUILTINS):
        return False
    try:
        info = msgspec.inspect.type_info(cls)
    except (TypeError, NameError):
        return False
    derived = type.__subclasses__(cls)
    return isinstance(info, msgspec.inspect.CustomType) and all(
        map(_says_nothing, derived)
    )
