"""Typed contracts: one object for both ends, checked by mypy."""

from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import Any, Generic, TypeVar

from .patterns import Pattern

AnyPattern = str | float | Mapping[str, Any] | list[Any] | tuple[Any, ...] | Enum
"""What is no contract: its payload and answer are of any type."""

In = TypeVar("In")
Out = TypeVar("Out")


class Request(Generic[In, Out]):
    """A message that is answered: ``Request({"cmd": "sum"}, list[int], int)``.

    Handlers are decorated with it and clients send it; ``data`` and ``returns`` are
    the types of the payload and of the answer. Where one is a union or ``None``, type
    checkers must be told: ``FIND: Request[int, User | None] = Request("find", int,
    User | None)``.
    """

    __slots__ = ("data", "pattern", "returns")

    def __init__(
        self,
        pattern: AnyPattern,
        data: type[In] | UnionType | None,
        returns: type[Out] | UnionType | None,
    ) -> None:
        self.pattern = Pattern.of(pattern)
        self.data = data
        self.returns = returns

    def __repr__(self) -> str:
        return f"Request({self.pattern.value!r}, {self.data!r}, {self.returns!r})"


class Event(Generic[In]):
    """A message that nobody answers: ``Event("user_created", UserCreated)``."""

    __slots__ = ("data", "pattern")

    def __init__(self, pattern: AnyPattern, data: type[In] | UnionType | None) -> None:
        self.pattern = Pattern.of(pattern)
        self.data = data

    def __repr__(self) -> str:
        return f"Event({self.pattern.value!r}, {self.data!r})"
