"""Patterns, and Nest's rule for which of them are the same.

What is registered and what arrives are compared by their *route*, the text that
``transformPatternToRoute`` of ``@nestjs/microservices`` 12.1.1 makes of them.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec

from .routes import plain, route
from .wildcards import AMQP, EXACT, MQTT, NATS, REDIS_GLOB, Grammar

__all__ = [
    "AMQP",
    "EXACT",
    "MQTT",
    "NATS",
    "REDIS_GLOB",
    "RESERVED_PREFIX",
    "Grammar",
    "Pattern",
    "is_reserved",
    "route",
    "unreachable_reason",
]

RESERVED_PREFIX = "dm-"

_CACHE_SIZE = 4096
_CACHED_LENGTH = 512


class Pattern(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a message is about: a text, or any JSON value that stands for one.

    ``json`` is the pattern as it was given, in compact JSON (empty where a message has
    none); ``route`` is Nest's canonical text, by which handlers are found and channels
    are named; ``route_json`` is that text as a JSON string; ``is_reserved`` says that
    it belongs to our own extension of the wire. Two patterns with the same
    route are equal.
    """

    json: bytes
    route: str
    route_json: bytes
    is_reserved: bool = False

    @classmethod
    def of(cls, value: Any) -> "Pattern":
        """Make the pattern that stands in code: a str, number, dict, list or tuple.

        Raises :class:`TypeError` for a type that no pattern has, and
        :class:`ValueError` for a value that cannot be written as JSON.
        """
        kind = type(value)
        if kind is str:
            return _texts.get(value) or _keep(_texts, value, _of_text(value))
        if kind is dict or kind is list:
            return _of_container(value)
        return _of(value)

    @classmethod
    def from_json(cls, raw: bytes) -> "Pattern":
        r"""Make the pattern that arrived as ``raw``, the JSON text of the member.

        Never raises: what cannot be read as JSON is taken as text. A string that is
        JSON itself is read once more, as Nest does: ``"{\"n\":1}"`` is ``{"n":1}``.
        """
        return _arrived.get(raw) or _keep(_arrived, raw, _read(raw))

    @classmethod
    def from_channel(cls, text: str) -> "Pattern":
        """Make the pattern that arrived as the name of a channel, subject or topic.

        The look-up is that of a string in the body: the channel ``{"b":1,"a":2}``
        finds the handler of ``{"a":2,"b":1}``. Never raises.
        """
        return _channels.get(text) or _keep(_channels, text, _look_up(text))

    @property
    def value(self) -> Any:
        """The pattern as plain Python, made anew each time; ``None`` if absent."""
        return _parse(self.json) if self.json else None

    def __str__(self) -> str:
        return self.route

    def __repr__(self) -> str:
        return f"Pattern({self.json.decode()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.route == other.route

    def __hash__(self) -> int:
        return hash(self.route)


def is_reserved(route: str) -> bool:
    """Whether ``route`` belongs to our own extension of the wire."""
    return route.startswith(RESERVED_PREFIX)


def unreachable_reason(value: str) -> str | None:
    """Say why no message of a Nest peer can reach the text pattern ``value``, if so.

    Nest reads the text of an incoming pattern as JSON where that is possible, so a
    registered text that is JSON, and not its canonical form, is never looked up.
    """
    try:
        found = _parse(value)
    except ValueError:
        return None
    if found is None or isinstance(found, bool):
        return (
            f"The pattern {value!r} is read as the JSON value {route(found)}, "
            "which no text is equal to: give it another name."
        )
    if (name := route(found)) == value:
        return None
    return (
        f"The pattern {value!r} is read as JSON and looked up as {name!r}, so nothing "
        f"can reach it: register it as {name!r}, or give it another name."
    )


# --- making and keeping -----------------------------------------------------------

_Key = TypeVar("_Key", str, bytes)

_texts: dict[str, Pattern] = {}
_containers: dict[bytes, tuple[Any, Pattern]] = {}
_arrived: dict[bytes, Pattern] = {}
_channels: dict[str, Pattern] = {}


def _keep(
    cache: dict[_Key, Any], key: _Key, pattern: Pattern, entry: Any = None
) -> Pattern:
    """Remember ``pattern``, within bounds that no peer can push outwards."""
    if len(key) <= _CACHED_LENGTH and len(pattern.route_json) <= 2 * _CACHED_LENGTH:
        if len(cache) >= _CACHE_SIZE:
            cache.clear()
        cache[key] = entry or pattern
    return pattern


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def _make(value: Any) -> Pattern:
    name = route(value)
    return Pattern(_dump(value), name, _dump(name), is_reserved(name))


def _of_text(value: str) -> Pattern:
    text = _dump(value)
    return Pattern(text, value, text, is_reserved(value))


def _of_container(value: Any) -> Pattern:
    try:
        key = _encode(value)
    except _UNENCODABLE:
        return _of(value)
    found = _containers.get(key)
    # NaN and bytes are encoded like null and text: the encoding alone proves nothing.
    if found is not None and found[0] == value:
        return found[1]
    pattern = _of(value)
    return _keep(_containers, key, pattern, (pattern.value, pattern))


def _of(value: Any) -> Pattern:
    if isinstance(value, Pattern):
        return value
    if value is None or isinstance(value, bool):
        message = (
            f"{value!r} cannot be a pattern: use a text, a number, a dict or a list."
        )
        raise TypeError(message)
    try:
        return _make(plain(value))
    except RecursionError:
        message = "The pattern nests too deeply, or contains itself."
        raise ValueError(message) from None


# --- reading ----------------------------------------------------------------------


def _read(raw: bytes) -> Pattern:
    try:
        value = _parse(raw.decode(), _finite) if raw else None
        if isinstance(value, str):
            return _look_up(value)
        return _make(value) if raw else Pattern(b"", "undefined", b'"undefined"')
    except (ValueError, RecursionError):
        return _of_text(raw.decode(errors="replace"))


def _look_up(text: str) -> Pattern:
    given = _dump(text)
    try:
        name = route(_parse(text)) if text[:1] in _STARTS_JSON else text
    except ValueError:
        name = text
    route_json = given if name is text else _dump(name)
    return Pattern(given, name, route_json, is_reserved(name))


_STARTS_JSON = frozenset('{["-0123456789tfn \t\r\n')


def _parse(text: str | bytes, number: Callable[[str], float | None] = float) -> Any:
    """Read JSON as ``JSON.parse`` does; raise :class:`ValueError` for anything else.

    ``json`` reads what msgspec refuses: half surrogates, and numbers out of range.
    """
    try:
        # A longer text may hold an integer that overflows a double.
        if len(text) <= _DOUBLE_DIGITS:
            return _decode(text)
    except (ValueError, RecursionError):
        pass

    def integer(digits: str) -> float | None:
        return int(digits) if len(digits) <= _DOUBLE_DIGITS else number(digits)

    try:
        return json.loads(
            text, parse_float=number, parse_int=integer, parse_constant=_refuse
        )
    except RecursionError:
        message = "Nested too deeply."
        raise ValueError(message) from None


_DOUBLE_DIGITS = 308


def _finite(text: str) -> float | None:
    """Read a number; ``JSON.stringify`` writes one that overflows as null."""
    return number if math.isfinite(number := float(text)) else None


def _refuse(token: str) -> NoReturn:
    message = f"{token} is not JSON."
    raise ValueError(message)


def _dump(value: Any) -> bytes:
    try:
        return _encode(value)
    except (ValueError, OverflowError):
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
