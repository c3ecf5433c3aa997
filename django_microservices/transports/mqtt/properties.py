"""The properties of MQTT 5 (its section 2.2.2), by name.

``user_properties`` is a tuple of pairs, since a name may recur, and
``subscription_identifier`` a tuple of numbers; every other property is one value.
"""

import operator
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ...exceptions import InvalidMessage
from ...wire.text import shown, suggestion

Properties = Mapping[str, Any]
NONE: Properties = MappingProxyType({})

LARGEST_LENGTH = 268_435_455
_MOST_LENGTH_BYTES = 4
LONGEST_TEXT = 65_535
_LAST_OF_PLANE = 0xFFFE
_NON_CHARACTERS = range(0xFDD0, 0xFDF0)


# --- the types of MQTT, in both directions -----------------------------------------


def length_bytes(value: int) -> bytes:
    """Write a variable byte integer."""
    parts = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits in each byte
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_length(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Read a variable byte integer: its value, and where it ends.

    The end is -1 where more bytes are needed. Raises :class:`InvalidMessage`.
    """
    value = 0
    for index in range(_MOST_LENGTH_BYTES):
        if start + index >= end:
            return 0, -1
        byte = data[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - no more bytes follow
            return value, start + index + 1
    message = "a length of more than four bytes"
    raise InvalidMessage(message)


def text_bytes(text: str) -> bytes:
    """Write a text with its length; raise ``ValueError`` for what MQTT does not take.

    mosquitto ends the connection for a control character in any text.
    """
    problem = problem_of(text)
    if problem is not None:
        message = f"{shown(text)!r} {problem}"
        raise ValueError(message)
    return binary_bytes(text.encode())


def problem_of(text: str, most: int = LONGEST_TEXT) -> str | None:
    """Say what no text of MQTT should have (its section 1.5.4), if it has it."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "has half a surrogate in it"
    if size > most:
        return f"has {size} bytes, and {most} is the most"
    if not (text.isascii() and text.isprintable()) and any(map(_is_barred, text)):
        return "has a control character in it"
    return None


def _is_barred(character: str) -> bool:
    code = ord(character)
    return (
        unicodedata.category(character) == "Cc"
        or code & _LAST_OF_PLANE == _LAST_OF_PLANE
        or code in _NON_CHARACTERS
    )


def binary_bytes(data: bytes) -> bytes:
    """Write bytes with their length; raise ``ValueError`` if they are too many."""
    if len(data) > LONGEST_TEXT:
        message = f"{len(data)} bytes are more than the {LONGEST_TEXT} that MQTT takes"
        raise ValueError(message)
    return len(data).to_bytes(2) + data


def read_text(data: bytes, start: int, end: int) -> tuple[str, int]:
    """Read a text: UTF-8 without a NUL."""
    raw, stop = read_binary(data, start, end)
    return checked_text(raw), stop


def checked_text(raw: bytes) -> str:
    """Decode a text; raise :class:`InvalidMessage` for what MQTT has not."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        message = "a text that is not UTF-8"
        raise InvalidMessage(message) from None
    if "\0" in text:
        message = "a text with a NUL in it"
        raise InvalidMessage(message)
    return text


def read_binary(data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """Read bytes that have their length in front."""
    size, start = read_number(data, start, end, 2)
    stop = start + size
    if stop > end:
        message = "a field that is longer than its packet"
        raise InvalidMessage(message)
    return data[start:stop], stop


def read_number(data: bytes, start: int, end: int, size: int) -> tuple[int, int]:
    """Read a number of so many bytes."""
    stop = start + size
    if stop > end:
        message = "a packet that ends too early"
        raise InvalidMessage(message)
    return int.from_bytes(data[start:stop]), stop


def _read_pair(data: bytes, start: int, end: int) -> tuple[tuple[str, str], int]:
    name, start = read_text(data, start, end)
    value, start = read_text(data, start, end)
    return (name, value), start


def _read_identifier(data: bytes, start: int, end: int) -> tuple[int, int]:
    value, stop = read_length(data, start, end)
    if stop < 0 or not value:
        message = "a subscription identifier that is none"
        raise InvalidMessage(message)
    return value, stop


class _Kind(NamedTuple):
    read: Callable[[bytes, int, int], tuple[Any, int]]
    write: Callable[[Any], bytes]
    repeats: bool = False


def _number(size: int) -> _Kind:
    return _Kind(
        lambda data, start, end: read_number(data, start, end, size),
        lambda value: operator.index(value).to_bytes(size),
    )


def _pair_bytes(pair: tuple[str, str]) -> bytes:
    name, value = pair
    return text_bytes(name) + text_bytes(value)


_BYTE, _SHORT, _LONG = _number(1), _number(2), _number(4)
_TEXT = _Kind(read_text, text_bytes)
_BINARY = _Kind(read_binary, lambda value: binary_bytes(bytes(value)))
_PAIRS = _Kind(_read_pair, _pair_bytes, repeats=True)
_IDENTIFIERS = _Kind(_read_identifier, length_bytes, repeats=True)

_TABLE: dict[int, tuple[str, _Kind]] = {
    0x01: ("payload_format_indicator", _BYTE),
    0x02: ("message_expiry_interval", _LONG),
    0x03: ("content_type", _TEXT),
    0x08: ("response_topic", _TEXT),
    0x09: ("correlation_data", _BINARY),
    0x0B: ("subscription_identifier", _IDENTIFIERS),
    0x11: ("session_expiry_interval", _LONG),
    0x12: ("assigned_client_identifier", _TEXT),
    0x13: ("server_keep_alive", _SHORT),
    0x15: ("authentication_method", _TEXT),
    0x16: ("authentication_data", _BINARY),
    0x17: ("request_problem_information", _BYTE),
    0x18: ("will_delay_interval", _LONG),
    0x19: ("request_response_information", _BYTE),
    0x1A: ("response_information", _TEXT),
    0x1C: ("server_reference", _TEXT),
    0x1F: ("reason_string", _TEXT),
    0x21: ("receive_maximum", _SHORT),
    0x22: ("topic_alias_maximum", _SHORT),
    0x23: ("topic_alias", _SHORT),
    0x24: ("maximum_qos", _BYTE),
    0x25: ("retain_available", _BYTE),
    0x26: ("user_properties", _PAIRS),
    0x27: ("maximum_packet_size", _LONG),
    0x28: ("wildcard_subscription_available", _BYTE),
    0x29: ("subscription_identifier_available", _BYTE),
    0x2A: ("shared_subscription_available", _BYTE),
}
_IDS = {name: (id_, kind) for id_, (name, kind) in _TABLE.items()}

OF_MESSAGES = frozenset(
    (
        "payload_format_indicator",
        "message_expiry_interval",
        "content_type",
        "response_topic",
        "correlation_data",
        "user_properties",
    )
)
"""What who publishes may say of a message."""


def property_bytes(properties: Properties) -> bytes:
    """Write properties with their length; raise ``ValueError`` naming a wrong one."""
    parts: list[bytes] = []
    for name, value in properties.items():
        id_, kind = _IDS[name]
        try:
            values = value if kind.repeats else (value,)
            parts += (bytes((id_,)) + kind.write(one) for one in values)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            message = f"{name}: {shown(value)} is not such a property: {error}"
            raise ValueError(message) from None
    body = b"".join(parts)
    return length_bytes(len(body)) + body


def check_names(names: Iterable[str], known: Iterable[str], path: str) -> None:
    """Raise ``ValueError`` for a property that has no place there."""
    known = frozenset(known)
    for name in names:
        if name not in known:
            message = f"{path}[{name!r}]: unknown; {suggestion(name, known)}"
            raise ValueError(message)


def read_properties(
    data: bytes, start: int, end: int, allowed: frozenset[str]
) -> tuple[Properties, int]:
    """Read properties: what they are, and where they end.

    Raises :class:`InvalidMessage` for what this packet may not have, or not twice.
    """
    size, start = read_length(data, start, end)
    stop = start + size
    if start < 0 or stop > end:
        message = "properties that are longer than their packet"
        raise InvalidMessage(message)
    found: dict[str, Any] = {}
    while start < stop:
        name, kind = _TABLE.get(data[start], ("?", _BYTE))
        if name not in allowed:
            message = f"a property that has no place there: {data[start]:#04x}"
            raise InvalidMessage(message)
        value, start = kind.read(data, start + 1, stop)
        if kind.repeats:
            found[name] = (*found.get(name, ()), value)
        elif name in found:
            message = f"a property that stands there twice: {name}"
            raise InvalidMessage(message)
        else:
            found[name] = value
    return (MappingProxyType(found) if found else NONE), stop
