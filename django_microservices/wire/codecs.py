"""JSON payloads and the envelope around them, strict in and strict out.

The envelope is decoded once with its payload kept raw, so that a handler's own typed
decoder reads the payload once, and a reply is built from encoded parts.
"""

import datetime
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
from django.db.models import Model, QuerySet
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

from ..exceptions import EncodingError, InvalidMessage
from .messages import UNSET, Reply

MAX_DEPTH = 64
SHALLOW = 2 * MAX_DEPTH
"""A text of no more bytes is too short for so many pairs of brackets."""
NO_HANDLER = "There is no matching message handler defined in the remote service."

# Counting a longer text costs more than taking its brackets out.
_COUNTED = 2048
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b'[]{}"')
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_STRINGS = re.compile(rb'"[^"]*"')


class TooDeep(InvalidMessage):
    """A text that nests deeper than :data:`MAX_DEPTH`."""


def is_too_deep(text: bytes) -> bool:
    """Whether ``text`` nests lists and objects deeper than :data:`MAX_DEPTH`.

    The count of brackets decides in the common case. Otherwise strings are taken out
    and one level of brackets after the other, each in one pass at C speed.
    """
    if len(text) <= _COUNTED and text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in text:  # first escaped backslashes, then what is escaped by the rest
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    text = text.translate(_AS_LISTS, _NOT_BRACKETS)
    if 2 * text.count(b'""') == text.count(b'"'):  # no string holds a bracket
        text = text.translate(None, b'"')
    else:
        text = _STRINGS.sub(b"", text)
    for _ in range(MAX_DEPTH):
        before = len(text)
        text = text.replace(b"[]", b"")
        if len(text) == before:
            break
    return bool(text)


# --- payloads ---------------------------------------------------------------------


def _text(value: Any) -> Any:
    """Write what msgspec does not know as ``DjangoJSONEncoder`` does."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Model):
        message = (
            f"{type(value).__name__} is a model instance, and cannot travel as it is: "
            "name its shape with response= or a return annotation, or send a dict."
        )
        raise EncodingError(message)
    if isinstance(value, QuerySet):
        message = (
            "A QuerySet cannot travel as it is: send list(queryset.values(...)), or "
            "name its shape with response= or a return annotation."
        )
        raise EncodingError(message)
    if isinstance(value, Mapping):
        return dict(value)
    message = (
        f"{type(value).__module__}.{type(value).__qualname__} cannot travel as JSON: "
        "send builtins, a dataclass, an attrs class or a msgspec.Struct."
    )
    raise EncodingError(message)


def plain(value: Any) -> Any:
    """Return ``value`` as builtins, its scalars as ``DjangoJSONEncoder`` writes them.

    NaN and the infinities become null, as ``JSON.stringify`` writes them.
    """
    return _scalars(
        msgspec.to_builtins(
            value, builtin_types=_SCALARS, str_keys=True, enc_hook=_text
        )
    )


_SCALARS = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)

# What msgspec may have written otherwise than Django does: more than milliseconds, and
# durations. A text that only looks like it costs the slow way, nothing else.
_POINT, _P = b".P"
_DECIMALS = re.compile(rb"\.\d{4}")  # begins with what is rare, so is found fast
_MICROSECONDS = re.compile(rb":\d\d\.\d{4}")
_DURATION = re.compile(rb'"-?P[\dT]')
_SHORTEST_UNLIKE_DJANGO = len(b'"P0D"')


def _scalars(value: Any) -> Any:  # noqa: PLR0911 - a rule for each type
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _scalars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scalars(item) for item in value]
    if isinstance(value, datetime.datetime):
        return _moment(value)
    if isinstance(value, datetime.time):
        return _time(value)
    if isinstance(value, datetime.timedelta):
        return duration_iso_string(value)
    return value.isoformat()


def _moment(value: datetime.datetime) -> str:
    text = value.isoformat(timespec="milliseconds" if value.microsecond else "auto")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _time(value: datetime.time) -> str:
    return value.isoformat(timespec="milliseconds" if value.microsecond else "auto")


_encoder = msgspec.json.Encoder(enc_hook=_text)
_encode = _encoder.encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes:
    """Encode what may be sent or returned; raise :class:`EncodingError` otherwise."""
    try:
        try:
            text = _encode(value)
        except UnicodeEncodeError:
            return dump(plain(value))
        if len(text) >= _SHORTEST_UNLIKE_DJANGO and _is_unlike_django(text):
            text = dump(plain(value))
    except EncodingError:
        raise
    except RecursionError:
        message = "The value nests too deeply, or contains itself."
        raise EncodingError(message) from None
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise EncodingError(str(error)) from error
    return text


def _is_unlike_django(text: bytes) -> bool:
    """Search for what tells them apart, where there is the one byte that all have."""
    if _POINT in text and _DECIMALS.search(text) and _MICROSECONDS.search(text):
        return True
    return _P in text and _DURATION.search(text) is not None


def decode(text: bytes | msgspec.Raw) -> Any:
    """Decode a JSON payload to plain Python.

    What msgspec refuses but ``json`` reads (a half surrogate that JavaScript wrote, an
    integer over 64 bits) is read by ``json``; NaN, infinities and numbers out of the
    range of a double are refused. Raises :class:`InvalidMessage`, whose text may
    travel: it tells nothing of what reads here.
    """
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _decode_leniently(bytes(text))


def _refuse(token: str) -> NoReturn:
    message = f"{token} is not JSON."
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(_OUT_OF_RANGE)
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # longer than sys.get_int_max_str_digits()
        raise ValueError(_OUT_OF_RANGE) from None


_OUT_OF_RANGE = "A number is out of range."


def _decode_leniently(text: bytes) -> Any:
    if is_too_deep(text):
        message = f"Nested deeper than {MAX_DEPTH} levels."
        raise TooDeep(message)
    try:
        return json.loads(
            text.decode(),
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError:
        message = "Not readable as JSON: it is not UTF-8."
    except json.JSONDecodeError as error:
        message = f"Not readable as JSON at character {error.pos}."
    except ValueError as error:
        message = f"Not readable as JSON: {error}"
    raise InvalidMessage(message)


# --- packets ----------------------------------------------------------------------

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
        packet = _decode_leniently(text)
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


def dump(value: Any) -> bytes:
    """Encode plain Python that ``json`` decoded, half surrogates included."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError):
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


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
        value = _decode_leniently(text)
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
    """Find the id of a message that cannot be read, or ``UNSET`` (best effort).

    Nest and we write the id behind the payload.
    """
    match = _ID_AT_END.search(text[-4096:])
    try:
        return decode(match[1]) if match else UNSET
    except InvalidMessage:
        return UNSET


_ID_AT_END = re.compile(
    rb',\s*"id"\s*:\s*("[^"\\]{1,128}"|-?\d{1,20})\s*'
    rb'(?:,\s*"metadata"\s*:\s*\{[^{}]*\}\s*)?\}\s*$'
)
