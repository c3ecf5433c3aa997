"""Texts for people: values of strangers in one line, and names that were meant."""

from collections.abc import Iterable
from typing import Any

LONGEST = 256


def shown(value: Any) -> str:
    """Return ``value`` for a log line: one line, no control characters, cut."""
    text = value if isinstance(value, str) else repr(value)
    escaped = text[: LONGEST + 1].encode("unicode_escape").decode()
    return escaped if len(escaped) <= LONGEST else f"{escaped[:LONGEST]}..."


def suggestion(name: Any, known: Iterable[str]) -> str:
    """Say which of the known names may have been meant, or which there are."""
    from difflib import get_close_matches  # only errors need it

    known = sorted(known)
    close = get_close_matches(str(name), known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(known) or 'nothing to name'}."
