"""A time as people write it: in settings, on a decorator, with a call."""

import sys
from datetime import timedelta
from typing import Any

from .secrets import masked

_MOST = sys.float_info.max


def seconds_of(value: Any, path: str, *, zero: bool = False) -> float:
    """Return a number of seconds, also of a ``timedelta``; ``path`` begins the message.

    Raises ``TypeError`` for what is no number, and ``ValueError`` for a number that is
    no time to wait: one that is negative or not finite, or 0 without ``zero``.
    """
    found = value.total_seconds() if isinstance(value, timedelta) else value
    least = "of at least 0" if zero else "over 0"
    message = f"{path}: {masked(value)} is not a number of seconds {least}."
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise TypeError(message)
    if not 0 < found <= _MOST and not (zero and found == 0):
        raise ValueError(message)
    return float(found)
