"""What a test sees of a message that a client sent."""

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import ANY

from ..exceptions import EncodingError
from ..wire.codecs import decode, encode
from ..wire.contracts import Event, Request
from ..wire.messages import UNSET, Message
from ..wire.patterns import Pattern

__all__ = ["ANY", "Sent", "plain_of", "route_of", "told"]


@dataclass(frozen=True)
class Sent:
    """A message as it travelled: ``data`` is plain Python, whatever was passed.

    Two are equal by ``pattern`` and ``data``, so that a test can spell them out.
    """

    pattern: Any
    data: Any = field(default_factory=lambda: ANY)
    is_event: bool = field(default=False, compare=False)
    headers: dict[str, str] = field(default_factory=dict, compare=False)
    timeout: float | None = field(default=None, compare=False)

    @classmethod
    def of(cls, message: Message) -> "Sent":
        """Read an encoded message."""
        data = UNSET if message.data is UNSET else decode(message.data)
        is_event, headers = message.id is UNSET, dict(message.headers or {})
        value = message.pattern.value
        return cls(value, data, is_event, headers, message.timeout)

    def is_like(self, route: str, data: Any) -> bool:
        """Whether it has this pattern and this payload."""
        return route_of(self.pattern) == route and bool(self.data == data)

    def __str__(self) -> str:
        return told(self.pattern, self.data)


def told(pattern: Any, data: Any) -> str:
    """Name a message in an error."""
    return f"{_pattern(pattern).value!r} with {data!r}"


def route_of(pattern: Any) -> str:
    """Return the canonical text of a pattern or a contract's."""
    return _pattern(pattern).route


def _pattern(given: Any) -> Pattern:
    return given.pattern if isinstance(given, Request | Event) else Pattern.of(given)


def plain_of(data: Any) -> Any:
    """Return a payload as it arrives; what holds ``ANY`` stays as it is."""
    try:
        return data if data is UNSET or data is ANY else decode(encode(data))
    except EncodingError:
        return data
