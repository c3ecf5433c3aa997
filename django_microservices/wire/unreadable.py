"""The answer to a message that could not be read."""

from typing import Any

from .messages import UNSET, Reply

UNREADABLE = b'{"status":"error","message":"The message could not be read."}'
_LONGEST_ID = 4096


def unreadable(id_: Any) -> Reply | None:
    """Return the error reply, or ``None`` where it cannot be told who asks.

    An id that is a list or an object, or very long, is not sent back.
    """
    if id_ is UNSET or isinstance(id_, dict | list) or len(str(id_)) > _LONGEST_ID:
        return None
    return Reply(id_, None, UNREADABLE)
