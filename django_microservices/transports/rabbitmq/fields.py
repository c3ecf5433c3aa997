"""Properties and headers as the bytes they came in, so that a copy says the same.

Source: AMQP 0-9-1, sections 4.2.5 and 4.2.6.1; the types of a table's values as
RabbitMQ has them (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
"""

from collections.abc import Mapping
from struct import Struct

from .properties import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    PRIORITY,
    REPLY_TO,
)

TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = 0x40, 0x20, 0x10, 0x08, 0x04

_FLAGS = Struct(">H")
_SIZE = Struct(">I")
_SHORT, _TABLE = -1, -2
_SIZES = {
    CONTENT_TYPE: _SHORT,
    CONTENT_ENCODING: _SHORT,
    HEADERS: _TABLE,
    DELIVERY_MODE: 1,
    PRIORITY: 1,
    CORRELATION_ID: _SHORT,
    REPLY_TO: _SHORT,
    EXPIRATION: _SHORT,
    MESSAGE_ID: _SHORT,
    TIMESTAMP: 8,
    TYPE: _SHORT,
    USER_ID: _SHORT,
    APP_ID: _SHORT,
    CLUSTER_ID: _SHORT,
}
"""Bytes of each property, in the order in which they follow their flags."""

_VALUES = dict.fromkeys(b"tbB", 1) | dict.fromkeys(b"sUu", 2) | dict.fromkeys(b"Iif", 4)
_VALUES |= dict.fromkeys(b"lLdT", 8) | {ord("D"): 5, ord("V"): 0, 0: 0}
_SIZED = frozenset(b"SxAF")  # begin with their size
_SIGNED = frozenset(b"bsUIlL")
_NUMBERS = _SIGNED | frozenset(b"Bui")


def read_fields(raw: bytes) -> dict[int, bytes]:
    """Return each property as it is packed, by its flag.

    Raises ``ValueError`` for what is cut off.
    """
    flags = int.from_bytes(raw[:2], "big")
    fields, at = {}, 2
    for flag, size in _SIZES.items():
        if flags & flag:
            end = at + (size if size > 0 else _size(raw, at, size))
            fields[flag] = raw[at:end]
            at = end
    _check(at, raw)
    return fields


def _size(raw: bytes, at: int, kind: int) -> int:
    head = 1 if kind == _SHORT else _SIZE.size
    return head + int.from_bytes(raw[at : at + head], "big")


def _check(at: int, raw: bytes) -> None:
    if at > len(raw):
        message = "The properties are cut off."
        raise ValueError(message)


def write_fields(fields: Mapping[int, bytes]) -> bytes:
    """Pack properties."""
    parts = [fields[flag] for flag in _SIZES if flag in fields]
    return b"".join((_FLAGS.pack(sum(fields)), *parts))


def read_entries(table: bytes) -> dict[bytes, bytes]:
    """Return each header of a table as it is packed, by its name.

    ``table`` begins with its size. Raises ``ValueError`` for one that cannot be read.
    """
    entries, at = {}, _SIZE.size
    while at < len(table):
        value = at + 1 + table[at]
        end = value + 1 + _size_of_value(table[value : value + 1 + _SIZE.size])
        _check(end, table)
        entries[table[at + 1 : value]] = table[value:end]
        at = end
    return entries


def _size_of_value(start: bytes) -> int:
    kind = start[0] if start else 0
    if kind in _SIZED:
        return _SIZE.size + int.from_bytes(start[1:], "big")
    if kind not in _VALUES:
        message = f"A header has the unknown type {kind}."
        raise ValueError(message)
    return _VALUES[kind]


def write_entries(entries: Mapping[bytes, bytes]) -> bytes:
    """Pack a table, with its size."""
    table = b"".join(
        b"%c%b%b" % (len(name), name, value) for name, value in entries.items()
    )
    return _SIZE.pack(len(table)) + table


def text_value(text: str) -> bytes:
    """Pack a header's value that is a text."""
    data = text.encode(errors="replace")
    return b"S%b%b" % (_SIZE.pack(len(data)), data)


def number_value(number: int) -> bytes:
    """Pack one that is a number, of 32 bits with its sign."""
    return b"I%b" % number.to_bytes(4, "big", signed=True)


def text_of(value: bytes) -> str:
    """Return a header's value that is a text; what is no UTF-8 in it is replaced."""
    if value[:1] != b"S":
        return ""
    return value[1 + _SIZE.size :].decode(errors="replace")


def number_of(value: bytes) -> int:
    """Return one that is a whole number; else 0."""
    if value[0] not in _NUMBERS:
        return 0
    return int.from_bytes(value[1:], "big", signed=value[0] in _SIGNED)
