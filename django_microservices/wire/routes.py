"""Nest's canonical text of a pattern, to the letter: what it is looked up by.

Source: ``transformPatternToRoute`` of ``@nestjs/microservices`` 12.1.1, which sorts
keys by ``localeCompare``: the collation of ICU, not the order of code points.
"""

import enum
import math
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MAX_DEPTH = 5
MAX_KEYS = 20
MAX_SAFE_INTEGER = 2**53 - 1


def route(value: Any, depth: int = 0) -> str:
    """Return the canonical text of ``value``, a JSON value.

    Keys are sorted, lists are objects with index keys, and numbers are written as
    JavaScript does. An object inside more than :data:`MAX_DEPTH` others, or with more
    than :data:`MAX_KEYS` keys, is replaced by Nest's marker. Raises :class:`TypeError`.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple):
        return _object_route(value, depth)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int | float):
        return _number_route(value)
    raise TypeError(_refusal(value))


_CONSTANTS = {None: "null", True: "true", False: "false"}


def _object_route(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        return "[MAX_DEPTH_REACHED]"
    if len(value) > MAX_KEYS:
        return "[TOO_MANY_KEYS]"
    if not isinstance(value, dict):
        value = {str(index): item for index, item in enumerate(value)}
    parts = (
        f"{_quote(key)}:{_member_route(value[key], depth + 1)}"
        for key in sorted(value, key=_collation_key)
    )
    return "{" + ",".join(parts) + "}"


def _member_route(value: Any, depth: int) -> str:
    return _quote(value) if isinstance(value, str) else route(value, depth)


def _quote(text: str) -> str:
    """Quote as Nest does, which escapes nothing else (a newline stays one)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refusal(value: Any) -> str:
    return (
        f"A pattern cannot hold a value of type {type(value).__qualname__}: use texts, "
        "numbers, booleans and None, in dicts and lists."
    )


# --- values -----------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Copy a pattern of code as the JSON values that JavaScript would write.

    Raises :class:`TypeError` for a type that no pattern holds, :class:`ValueError` for
    NaN and numbers beyond a double.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _plain_number(value)
    if isinstance(value, Mapping):
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(_refusal(value))


def _plain_key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(int(key))
    message = f"{key!r} cannot be a key in a pattern: use texts."
    raise TypeError(message)


def _plain_number(value: float) -> float:
    number = _double(value)
    if not math.isfinite(number):
        message = "A pattern cannot hold NaN, or a number beyond the range of a double."
        raise ValueError(message)
    is_exact = number.is_integer() and abs(number) <= MAX_SAFE_INTEGER
    return int(value) if is_exact else number


# --- numbers ----------------------------------------------------------------------


def _number_route(value: float) -> str:
    """Write a number as JavaScript's ``String(value)``; its numbers are doubles."""
    if isinstance(value, int) and abs(value) <= MAX_SAFE_INTEGER:
        return str(int(value))
    number = _double(value)
    if not math.isfinite(number):
        return _NOT_FINITE.get(number, "NaN")
    text = float.__repr__(number)
    if number == 0:
        return "0"
    if _SMALLEST_PLAIN <= abs(number) < _SMALLEST_LARGE:
        return format(Decimal(text), "f").removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent):+d}"


_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_SMALLEST_PLAIN = 1e-6
_SMALLEST_LARGE = 1e21


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# --- the order of keys ------------------------------------------------------------

_ORDER = (
    "\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"
)
_RANKS = {ord(char): chr(rank) for rank, char in enumerate(_ORDER)}
_RANKS |= {ord(char.upper()): chr(rank) for rank, char in enumerate(_ORDER)}
_IGNORED: dict[int, None] = dict.fromkeys({*range(0xA0), 0xAD} - {*_RANKS, 0x85})

_PRIMARY = {**_RANKS, **_IGNORED}
_CASE = {**{code: "01"[chr(code).isupper()] for code in _RANKS}, **_IGNORED}


def _collation_key(key: str) -> tuple[str, str, str]:
    """Return what sorts as ICU's root collation: by letters, then accents, then case.

    Exact for ASCII. Beyond it the best that the standard library can do: accented
    Latin letters stand beside their base letter, symbols before the digits, other
    scripts behind Latin by code point. A Node in a locale of its own may differ.
    """
    if not key.isascii():
        return _collation_key_beyond_ascii(key)
    return key.translate(_PRIMARY), "", key.translate(_CASE)


def _collation_key_beyond_ascii(key: str) -> tuple[str, str, str]:
    text = unicodedata.normalize("NFD", key.translate(_SPLIT))
    accents = "".join(
        _ACCENTS.get(char, char) if unicodedata.combining(char) else "\0"
        for char in text
    )
    letters = "".join(char for char in text if not unicodedata.combining(char))
    ranks = "".join(
        char if char.isascii() or char.isalnum() else _symbol(char)
        for char in letters.casefold()
    )
    case = "".join("01"[char.isupper()] for char in letters)
    return ranks.translate(_PRIMARY), accents, case


def _symbol(char: str) -> str:
    """Put currencies behind the dollar, and all other symbols before it."""
    return ("$" if unicodedata.category(char) == "Sc" else "~") + char


# Letters that ICU takes apart and Unicode's decomposition does not.
_SPLIT: dict[int, str | None] = {
    **_IGNORED,
    **{
        ord(letter): base[0] + "\u0338" + base[1:]
        for letter, base in zip(
            "\xe6\xc6\u0153\u0152\xf8\xd8\xdf"
            "\u0111\u0110\xf0\xd0\u0142\u0141\u0127\u0126",
            ("ae", "AE", "oe", "OE", *"oO", "ss", *"dDdDlLhH"),
            strict=True,
        )
    },
}
_ACCENTS = {
    char: chr(rank)
    for rank, char in enumerate(
        "\u0301\u0300\u0306\u0302\u030c\u030a\u0308"
        "\u030b\u0303\u0307\u0338\u0327\u0328\u0304",
        start=1,
    )
}
