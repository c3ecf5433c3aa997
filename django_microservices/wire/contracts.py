"""Typed contracts: one object for both ends, checked by mypy."""

from typing import Any, Generic, TypeVar

from .patterns import Pattern

In = TypeVar("In")
Out = TypeVar("Out")


class Request(Generic[In, Out]):
    """A message that is answered: ``Request({"cmd": "sum"}, list[int], int)``.

    Handlers are decorated with it and clients send it; ``data`` and ``returns`` are
    the types of the payload and of the answer.
    """

    __slots__ = ("data", "pattern", "returns")

    def __init__(self, pattern: Any, data: type[In], returns: type[Out]) -> None:
        self.pattern = Pattern.of(pattern)
        self.data = data
        self.returns = returns

    def __repr__(self) -> str:
        return f"Request({self.pattern.value!r}, {self.data!r}, {self.returns!r})"


class Event(Generic[In]):
    """A message that nobody answers: ``Event("user_created", UserCreated)``."""

    __slots__ = ("data", "pattern")

    def __init__(self, pattern: Any, data: type[In]) -> None:
        self.pattern = Pattern.of(pattern)
        self.data = data

    def __repr__(self) -> str:
        return f"Event({self.pattern.value!r}, {self.data!r})"
