"""Hides secrets: nothing of them stands in a message, a repr, a log or a check."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "********"

_NAME = re.compile(r"pass|secret|token|key|credential|auth|signature", re.IGNORECASE)
_URL_USER = re.compile(r"(?<=://)[^\s'\"]*@")
_URL_PARAMETER = re.compile(
    r"(?<=[?&;])([\w.-]*(?:pass|secret|token|key|auth)[\w.-]*)=[^&;\s'\"]*",
    re.IGNORECASE,
)
_PEM = re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|\Z)", re.DOTALL)


def masked(value: Any, name: str = "") -> str:
    """Return the repr of an option's value, without the secrets in it.

    Hidden are values whose own ``name`` or key tells a secret (``password``, ``key``),
    the user's part of a URL, and PEM texts.
    """
    if isinstance(value, Mapping):
        parts = (f"{key!r}: {masked(item, str(key))}" for key, item in value.items())
        return "{" + ", ".join(parts) + "}"
    if is_secret(value, name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return "[" + ", ".join(masked(item, name) for item in value) + "]"
    return _masked_text(repr(value))


def is_secret(value: Any, name: str) -> bool:
    """Whether an option of this name hides its value; what is unset is no secret."""
    return not isinstance(value, bool | None) and bool(_NAME.search(name))


def without_secrets(text: str, options: Any) -> str:
    """Return a text of somebody else, without what is secret in ``options``."""
    for secret in sorted(_secrets(options), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _masked_text(text)


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, name)
    elif is_secret(value, name) and str(value):
        yield str(value)


def _masked_text(text: str) -> str:
    text = _URL_USER.sub(f"{HIDDEN}@", text)
    text = _URL_PARAMETER.sub(rf"\1={HIDDEN}", text)
    return _PEM.sub(HIDDEN, text)
