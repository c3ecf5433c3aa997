"""JSON payloads, strict in and strict out."""

import datetime
import json
import math
import re
from array import array
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NoReturn

import msgspec
from django.db.models import Model, QuerySet
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

from ..exceptions import EncodingError, InvalidMessage

MAX_DEPTH = 64
# A text of no more bytes is too short for so many pairs of brackets. And counting those
# of a long one costs more than taking them out.
_SHALLOW = 2 * MAX_DEPTH
_COUNTED = 2048
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b'[]{}"')
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_STRINGS = re.compile(rb'"[^"]*"')
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")


class TooMuch(InvalidMessage):
    """A text that is JSON, but nests too deeply or has a number out of range."""


def is_too_deep(text: bytes) -> bool:
    """Whether ``text`` nests lists and objects deeper than :data:`MAX_DEPTH`.

    The count of brackets decides in the common case. Otherwise strings are taken out
    and one level of brackets after the other, each in one pass at C speed, as long as
    that takes out much. What then is left is walked through.
    """
    size = len(text)
    if size <= _SHALLOW:
        return False
    if size <= _COUNTED and text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _brackets(text)
    for left in range(MAX_DEPTH, 0, -1):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
        if len(brackets) > before * 3 // 4:
            steps = array("b", brackets.translate(_STEPS))
            return max(accumulate(steps)) >= left
    return True


def _brackets(text: bytes) -> bytes:
    """Return what opens and closes lists and objects, as if all were lists."""
    if b"\\" in text:  # first escaped backslashes, then what is escaped by the rest
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    text = text.translate(_AS_LISTS, _NOT_BRACKETS)
    if 2 * text.count(b'""') == text.count(b'"'):  # no string holds a bracket
        return text.translate(None, b'"')
    return _STRINGS.sub(b"", text)


# Of what subclasses msgspec takes no instances, such as Django's SafeString.
_SUBCLASSED: Any = ((str, str.__str__), (int, int.__int__), (float, float.__float__))


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
    if value is None or isinstance(value, bool | tuple | frozenset):
        message = f"{value!r} cannot be a key of a JSON object: use a text."
        raise EncodingError(message)
    for kind, plain in _SUBCLASSED:
        if isinstance(value, kind):
            return plain(value)
    message = (
        f"{type(value).__module__}.{type(value).__qualname__} cannot travel as JSON: "
        "send builtins, a dataclass, an attrs class or a msgspec.Struct."
    )
    raise EncodingError(message)


def builtins_of(value: Any) -> Any:
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
            return dump(builtins_of(value))
        if len(text) >= _SHORTEST_UNLIKE_DJANGO and _is_unlike_django(text):
            text = dump(builtins_of(value))
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


def dump(value: Any) -> bytes:
    """Encode plain Python that ``json`` decoded, half surrogates included."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, TypeError, ValueError, msgspec.MsgspecError):
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


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
        return decode_leniently(bytes(text))


def _refuse(token: str) -> NoReturn:
    message = f"{token} is not JSON."
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise TooMuch(_OUT_OF_RANGE)
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # longer than sys.get_int_max_str_digits()
        raise TooMuch(_OUT_OF_RANGE) from None


_OUT_OF_RANGE = "Not readable as JSON: A number is out of range."


def decode_leniently(text: bytes) -> Any:
    """Decode with ``json`` what msgspec refused; as :func:`decode`."""
    if is_too_deep(text):
        message = f"Nested deeper than {MAX_DEPTH} levels."
        raise TooMuch(message)
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
