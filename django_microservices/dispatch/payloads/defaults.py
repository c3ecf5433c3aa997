"""Defaults that msgspec leaves to the class, where encoding does not find them.

msgspec sets no field of a dataclass that it finds as an attribute of the class, and
encodes what the instance itself has: what was left out would be lost on the way.
"""

from collections.abc import Callable, Iterable
from inspect import ismemberdescriptor
from typing import Any, NamedTuple, get_origin

from msgspec import NODEFAULT, inspect

from .annotations import WITH_FIELDS, nodes_of

_CONTAINERS = (list, tuple, set, frozenset)


class _Plan(NamedTuple):
    """What is to be done with the instances of one class.

    ``names`` are the fields in which more may be left out.
    """

    names: tuple[str, ...]
    left_out: tuple[inspect.Field, ...]


_Plans = dict[type, _Plan]


def completing(read: Callable[[Any], Any], annotation: Any) -> Callable[[Any], Any]:
    """Return ``read``, msgspec's way to this type, followed by what it leaves out.

    It is ``read`` itself with every type but plain dataclasses that have defaults.
    """
    info = inspect.type_info(annotation)
    if not _is_incomplete(info):
        return read
    plans = _plans(info)

    def read_completely(data: Any) -> Any:
        value = read(data)
        _complete(value, plans)
        return value

    return read_completely


def _is_incomplete(info: inspect.Type) -> bool:
    return any(_left_out(node) for node in nodes_of(info))


def _left_out(node: inspect.Type) -> tuple[inspect.Field, ...]:
    """Return the fields whose default the class has; with ``slots`` it has none."""
    if not isinstance(node, inspect.DataclassType):
        return ()
    return tuple(f for f in node.fields if not f.required and _is_on(node.cls, f.name))


def _is_on(cls: type, name: str) -> bool:
    found = getattr(cls, name, NODEFAULT)
    return not (found is NODEFAULT or ismemberdescriptor(found))


def _plans(info: inspect.Type) -> _Plans:
    """Return the plan of each class; a generic one may stand there more than once."""
    plans: _Plans = {}
    for node in nodes_of(info):
        if isinstance(node, WITH_FIELDS):
            names = (field.name for field in node.fields if _is_incomplete(field.type))
            cls = get_origin(node.cls) or node.cls
            others = plans[cls].names if cls in plans else ()
            plans[cls] = _Plan((*others, *names), _left_out(node))
    return plans


def _complete(value: Any, plans: _Plans) -> None:
    """Set what is left out, in all that was read; it may contain itself."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        parts = _parts(item, plans.get(type(item)))
        if parts and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(parts)


def _parts(item: Any, plan: _Plan | None) -> Iterable[Any]:
    """Set what is left out of one value, and return what is in it."""
    if plan is not None:
        for field in plan.left_out:
            if field.name not in item.__dict__:
                item.__dict__[field.name] = _default(field)
        return [getattr(item, name, None) for name in plan.names]
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, _CONTAINERS) else ()


def _default(field: inspect.Field) -> Any:
    return field.default_factory() if field.default is NODEFAULT else field.default
