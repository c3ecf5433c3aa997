"""Nest's packets: a payload's envelope, read once with the payload kept raw.

So a handler's own typed decoder reads the payload once, and a reply is built from
encoded parts. Source: ``reference/nest-wire.md`` A.1 and A.2.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..exceptions import InvalidMessage
from .codecs import decode, decode_leniently, dump
from .messages import UNSET, Reply

NO_HANDLER = "There is no matching message handler defined in the remote service."

_encode = msgspec.json.Encoder().encode
_ABSENT = msgspec.Raw()


class Envelope(msgspec.Struct, gc=False):
    """A request or event as it stands on the wire; absent members are empty."""

    pattern: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    id: Any = UNSET
    metadata: dict[str, str] | None = None


class ReplyEnvelope(msgspec.Struct, gc=False):
    """A reply as it stands on the wire; absent members are empty."""

    id: Any = None
    response: msgspec.Raw = _ABSENT
    err: msgspec.Raw = _ABSENT
    isDisposed: Any = False  # noqa: N815 - Nest's name
    status: Any = None


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_reply = msgspec.json.Decoder(ReplyEnvelope).decode


def read_envelope(text: bytes) -> Envelope | None:
    """Read a request or event; ``None`` is JSON that is no message.

    Raises :class:`InvalidMessage` for what is not JSON at all.
    """
    try:
        return _decode_envelope(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        packet = decode_leniently(text)
    if not isinstance(packet, dict):
        return None
    return envelope_of(packet)


def envelope_of(packet: Mapping[str, Any]) -> Envelope:
    """Make an Envelope from a packet that is plain Python already."""
    metadata = packet.get("metadata")
    return Envelope(
        **{
            name: msgspec.Raw(dump(packet[name]))
            for name in ("pattern", "data")
            if name in packet
        },
        id=packet.get("id", UNSET),
        metadata=texts_of(metadata) if isinstance(metadata, dict) else None,
    )


def texts_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Keep the members that are text."""
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


_NO_ERRORS = frozenset((b"null", b'""', b"false", b""))


def _is_error(text: bytes) -> bool:
    """JavaScript's truth of an encoded value: zero, however written, is false."""
    return text not in _NO_ERRORS and not _ZERO.fullmatch(text)


_ZERO = re.compile(rb"-?0(?:\.0+)?(?:[eE][+-]?\d+)?")


def read_reply(text: bytes) -> Reply | None:
    """Read a reply packet; ``None`` is JSON that is no reply.

    Raises :class:`InvalidMessage` for what is not JSON at all. Truth is JavaScript's:
    ``err`` null, '', 0 or false is no error, ``{}`` and ``[]`` are errors.
    """
    try:
        packet = _decode_reply(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = decode_leniently(text)
        if not isinstance(value, dict):
            return None
        return reply_of_packet(value)
    return _reply_of(packet)


def reply_of_packet(value: Mapping[str, Any]) -> Reply:
    """Make a Reply from a packet that is plain Python already."""
    response, error = (
        msgspec.Raw(dump(value[name])) if name in value else _ABSENT
        for name in ("response", "err")
    )
    id_, last, status = (value.get(name) for name in ("id", "isDisposed", "status"))
    return _reply_of(ReplyEnvelope(id_, response, error, last, status))


def _reply_of(packet: ReplyEnvelope) -> Reply:
    if packet.err is _ABSENT and packet.isDisposed is True:  # the common case
        data = packet.response
        return Reply(packet.id, None if data is _ABSENT else data)
    data, error = packet.response, packet.err
    if error is not _ABSENT and _is_error(text := bytes(error)):
        missing = packet.status == "error" and text == _NO_HANDLER_JSON
        return Reply(packet.id, None, text, True, missing)
    last = packet.isDisposed
    return Reply(
        packet.id,
        None if data is _ABSENT else data,
        None,
        last is True or _is_true(last),
    )


def _is_true(value: Any) -> bool:
    """JavaScript's truth: empty lists and objects are true."""
    return bool(value) or isinstance(value, list | dict)


_NO_HANDLER_JSON = _encode(NO_HANDLER)


def write_reply(reply: Reply) -> bytes:
    """Encode a reply; its keys are a closed set for Nest 12 (A.1)."""
    try:
        id_ = _encode(reply.id)
    except UnicodeEncodeError:  # half a surrogate pair, which the caller gets back
        id_ = dump(reply.id)
    data = reply.data
    if data is not None:
        if reply.last:
            return b'{"response":%b,"isDisposed":true,"id":%b}' % (data, id_)
        return b'{"response":%b,"id":%b}' % (data, id_)
    if reply.missing:
        return b'{"id":%b,"status":"error","err":%b}' % (id_, _NO_HANDLER_JSON)
    if reply.error is not None:
        return b'{"err":%b,"isDisposed":true,"id":%b}' % (reply.error, id_)
    # JavaScript's undefined has no member at all.
    return (b'{"isDisposed":true,"id":%b}' if reply.last else b'{"id":%b}') % id_


def write_message(
    pattern: bytes, data: bytes | None, id_: Any, metadata: bytes | None
) -> bytes:
    """Encode a request (with an id) or an event (without) from encoded parts."""
    if data is not None and id_ is not UNSET and metadata is not None:
        return b'{"pattern":%b,"data":%b,"id":%b,"metadata":%b}' % (
            pattern,
            data,
            _encode(id_),
            metadata,
        )
    parts = [b'{"pattern":', pattern]
    if data is not None:
        parts += (b',"data":', data)
    if id_ is not UNSET:
        parts += (b',"id":', _encode(id_))
    if metadata is not None:
        parts += (b',"metadata":', metadata)
    parts.append(b"}")
    return b"".join(parts)


def find_id(text: bytes) -> Any:
    """Find the id of a packet that cannot be read, or ``UNSET`` (best effort).

    Nest and we write the id behind the payload; others may begin with it.
    """
    match = _ID_AT_END.search(text[-4096:]) or _ID_AT_START.match(text)
    try:
        return decode(match[1]) if match else UNSET
    except InvalidMessage:
        return UNSET


_ID = rb'"id"\s*:\s*("[^"\\]{1,128}"|-?\d{1,20})\s*'
_ID_AT_START = re.compile(rb"\s*\{\s*" + _ID + rb",")
_ID_AT_END = re.compile(
    rb",\s*" + _ID + rb'(?:,\s*"metadata"\s*:\s*\{[^{}]*\}\s*)?\}\s*$'
)
