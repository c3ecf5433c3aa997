"""Clients and servers by name, like ``caches``."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

E = TypeVar("E")


class Ends(Generic[E]):
    """``clients`` and ``servers``: one object per name, for the whole process."""

    def __init__(
        self, names: Callable[[], Iterable[str]], make: Callable[[str], E]
    ) -> None:
        self._names = names
        self._make = make
        self._ends: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        try:
            return self._ends[name]
        except KeyError:
            return self._ends.setdefault(name, self._make(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def all(self) -> list[E]:
        """Return those that were used so far."""
        return list(self._ends.values())

    def clear(self) -> None:
        """Make them anew when they are next asked for."""
        self._ends.clear()
