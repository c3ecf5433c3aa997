"""The channels of answers that are one caller's own, ours to ours.

They are made of an id, so that no peer can have us publish elsewhere.
"""

import re
from typing import Any

from ...wire.messages import new_id

_START = "dm-reply."
_ID = re.compile(r"[0-9a-f]{20}")
_NAME = re.compile(rb"dm-reply\.[0-9a-f]{20}")
_ENDS = re.compile(_NAME.pattern + rb"\Z")


def new_reply_name(prefix: str) -> bytes:
    """Return a fresh name."""
    return f"{prefix}{_START}{new_id()}".encode()


def reply_name_of(id_: Any) -> bytes | None:
    """Return the name for the answers to one request; ``None`` for a strange id."""
    if isinstance(id_, str) and _ID.fullmatch(id_):
        return f"{_START}{id_}".encode()
    return None


def is_reply_name(name: bytes, prefix: str) -> bool:
    """Whether it is one that begins with ``prefix``."""
    start = prefix.encode()
    return name.startswith(start) and bool(_NAME.fullmatch(name, len(start)))


def is_any_reply_name(name: bytes) -> bool:
    """Whether it is one, whatever it begins with."""
    return _ENDS.search(name) is not None
