"""Numbers among the options of every wire: none that fails at run time passes."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices import transports
from django_microservices.options import check_types
from django_microservices.transports import Transport
from django_microservices.wire.ranges import Range

WIRES = [
    getattr(transports, name) for name in transports.__all__ if name != "Transport"
]


def hints_of(cls: type[Transport]) -> dict[str, Any]:
    """Return the annotation of each option, those of the classes above included."""
    hints: dict[str, Any] = {}
    for one in reversed(cls.__mro__[:-1]):
        if "__init__" in vars(one):
            hints |= get_type_hints(vars(one)["__init__"], include_extras=True)
    return hints


def numbers_in(hint: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Yield each number that an annotation asks for, with where it stands."""
    if hint in {int, float} or get_origin(hint) is Annotated:
        yield path, hint
    elif is_typeddict(hint):
        for key, item in get_type_hints(hint, include_extras=True).items():
            yield from numbers_in(item, (*path, key))
    elif get_origin(hint) is not dict:
        for part in get_args(hint):
            if isinstance(part, type) or get_args(part):
                yield from numbers_in(part, path)


NUMBERS = [
    pytest.param(cls, path, hint, id=f"{cls.__name__}-{'-'.join(path)}")
    for cls in WIRES
    for name, option in sorted(hints_of(cls).items())
    for path, hint in numbers_in(option, (name,))
]


def nested(cls: type[Transport], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return OPTIONS that have ``value`` at this place."""
    for name in reversed(path[1:]):
        value = {name: value}
    listed = path[0] in {"urls", "sentinels"}
    return {path[0]: [value] if listed else value}


@pytest.mark.parametrize(("cls", "path", "hint"), NUMBERS)
def test_every_number_has_a_range(
    cls: type[Transport], path: tuple[str, ...], hint: Any
) -> None:
    """What is below it is refused, and so is NaN; the message names the option."""
    (limit,) = (one for one in get_args(hint)[1:] if isinstance(one, Range))
    kind = get_args(hint)[0]
    wrong = [kind(limit.least - 1)]
    if kind is float:
        wrong += [math.nan, math.inf]
    if limit.over:
        wrong.append(limit.least)
    for value in wrong:
        options = nested(cls, path, value)
        with pytest.raises(ImproperlyConfigured) as caught:
            check_types(cls, options, "OPTIONS")
        assert str(caught.value).startswith(f"OPTIONS[{path[0]!r}]")
        assert str(caught.value).endswith(
            f"{path[-1]!r}]: {value} is not {limit}."
        ) or (path[0] in {"urls", "sentinels"})


def test_the_least_is_accepted() -> None:
    """A bound that is itself allowed passes."""
    options = {"port": 0, "backlog": 1, "retry_attempts": 0, "retry_delay": 0}
    assert check_types(transports.TCPTransport, options, "OPTIONS") == options
