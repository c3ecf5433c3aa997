"""Values of strangers, made fit for a log line."""

from typing import Any

LONGEST = 256


def shown(value: Any) -> str:
    """Return ``value`` for a log line: one line, no control characters, cut."""
    text = value if isinstance(value, str) else repr(value)
    escaped = text[: LONGEST + 1].encode("unicode_escape").decode()
    return escaped if len(escaped) <= LONGEST else f"{escaped[:LONGEST]}..."
