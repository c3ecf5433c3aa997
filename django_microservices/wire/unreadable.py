"""The answer to a message that could not be read, and an answer that cannot be."""

from typing import Any

from .codecs import MAX_DEPTH
from .messages import UNSET, Reply

UNREADABLE = b'{"status":"error","message":"The message could not be read."}'
TOO_LARGE = "A message or its answer is too large."
TOO_LARGE_ERROR = b'{"status":"error","message":"%b"}' % TOO_LARGE.encode()
"""In the place of an answer that is larger than one of the two ends allows."""
TOO_OLD_ERROR = b'{"status":"error","message":"The stream went on for too long"}'
"""The end of a stream of which nobody says whether it is still read."""
TOO_DEEP = b"(" + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
"""In the place of an answer that nests too deeply: no JSON, and so deep itself that
whatever reads it says so."""

_LONGEST_ID = 4096


def unreadable(id_: Any) -> Reply | None:
    """Return the error reply, or ``None`` where it cannot be told who asks.

    An id that is a list or an object, or very long, is not sent back.
    """
    if id_ is UNSET or isinstance(id_, dict | list) or len(str(id_)) > _LONGEST_ID:
        return None
    return Reply(id_, None, UNREADABLE)
