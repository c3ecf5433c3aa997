"""The properties of a message, read as far as the hot path needs them.

Source: AMQP 0-9-1, section 4.2.6.1: flags, and then in order what they announce. All of
them are read by pamqp where somebody asks: ``context.wire.properties``.
"""

from collections.abc import Mapping
from struct import Struct

from pamqp import commands, decode, header

from ...wire.packets import texts_of
from .frames import short
from .names import DIRECT_REPLY_TO

CONTENT_TYPE, CONTENT_ENCODING, HEADERS = 0x8000, 0x4000, 0x2000
DELIVERY_MODE, PRIORITY, CORRELATION_ID = 0x1000, 0x0800, 0x0400
REPLY_TO, EXPIRATION, MESSAGE_ID = 0x0200, 0x0100, 0x0080
TRANSIENT, PERSISTENT = 1, 2
_ASKED_FOR = HEADERS | CORRELATION_ID | REPLY_TO

_UNREADABLE = (RecursionError, LookupError, ArithmeticError, OSError, TypeError)
"""What pamqp raises for bytes of strangers, beside ``ValueError``."""
_SIZE = Struct(">I")
_LONGEST_NAME = 128  # bytes of the name of a header
_MOST_KNOWN = 1024
_LONGEST_KNOWN = 256
_known: dict[bytes, dict[str, str]] = {}
"""What the few tables that recur say: bounded, since peers write them."""


Essentials = tuple[bytes | None, bytes | None, bytes | None]
"""What each message is asked for: its headers, correlation id, and whom to answer."""


def essentials(raw: bytes) -> Essentials:
    """Read what each message is asked for; raise ``ValueError`` for what is cut off."""
    try:
        return _essentials(raw)
    except IndexError:
        message = "The properties are cut off."
        raise ValueError(message) from None


def _essentials(raw: bytes) -> Essentials:
    headers = correlation_id = reply_to = None
    flags = raw[0] << 8 | raw[1]
    at = 2
    if not flags & _ASKED_FOR:
        return None, None, None
    if flags & CONTENT_TYPE:
        at += 1 + raw[at]
    if flags & CONTENT_ENCODING:
        at += 1 + raw[at]
    if flags & HEADERS:
        end = at + 4 + int.from_bytes(raw[at : at + 4], "big")
        headers = raw[at + 4 : end]
        at = end
    if flags & DELIVERY_MODE:
        at += 1
    if flags & PRIORITY:
        at += 1
    if flags & CORRELATION_ID:
        end = at + 1 + raw[at]
        correlation_id = raw[at + 1 : end]
        at = end
    if flags & REPLY_TO:
        end = at + 1 + raw[at]
        reply_to = raw[at + 1 : end]
    return headers, correlation_id, reply_to


def read_texts(table: bytes) -> dict[str, str]:
    """Return the headers that are texts; raise ``ValueError`` for no table at all.

    ``table`` is without its size. The result is the caller's own.
    """
    found = _known.get(table)
    if found is None:
        found = _texts(table)
        if len(table) <= _LONGEST_KNOWN:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[table] = found
    return found.copy()


def _texts(table: bytes) -> dict[str, str]:
    try:
        _, values = decode.field_table(_SIZE.pack(len(table)) + table)
    except _UNREADABLE as error:
        raise ValueError(str(error)) from None
    return texts_of(values)


def packed_name(name: str) -> bytes:
    """Pack the name of a header; raise ``ValueError`` for one that is too long."""
    key = name.encode()
    if len(key) > _LONGEST_NAME:
        message = f"headers: the name {name!r:.64} has more than {_LONGEST_NAME} bytes."
        raise ValueError(message)
    return b"%c%b" % (len(key), key)


def write_texts(headers: Mapping[str, str]) -> bytes:
    """Pack headers that are texts; raise ``ValueError`` for a name that is too long."""
    parts = []
    for name, value in headers.items():
        text = value.encode()
        parts.append(b"%bS%b%b" % (packed_name(name), _SIZE.pack(len(text)), text))
    table = b"".join(parts)
    return _SIZE.pack(len(table)) + table


def read_properties(raw: bytes) -> commands.Basic.Properties:
    """Read all properties; raise ``ValueError`` for what cannot be read."""
    head = header.ContentHeader()
    try:
        head.unmarshal(bytes(12) + raw)
    except _UNREADABLE as error:
        raise ValueError(str(error)) from None
    return head.properties


def write_properties(properties: commands.Basic.Properties) -> bytes:
    """Pack all properties; raise ``ValueError`` or ``TypeError`` for a wrong one."""
    properties.validate()
    return properties.marshal()


def of_reply(correlation_id: bytes | None) -> bytes:
    """Pack the properties of a reply: nothing but the request's own id (A.7)."""
    if correlation_id is None:
        return b"\0\0"
    return b"\x04\0%c%b" % (len(correlation_id), correlation_id)


def of_item(correlation_id: bytes) -> bytes:
    """Pack those of a stream's item, to a client of ours that may want no more.

    The broker makes an address of the name by which only this server is reached.
    """
    return b"\x06\0%c%b%b" % (len(correlation_id), correlation_id, _DIRECT)


_DIRECT = short(DIRECT_REPLY_TO)
