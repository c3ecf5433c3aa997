"""The answer to a message that could not be read, and an answer that cannot be."""

import logging
from typing import Any

from .codecs import MAX_DEPTH
from .messages import UNSET, Reply

logger = logging.getLogger(__name__)

UNREADABLE = (
    b'{"status":"error","message":"The message could not be read: '
    b'it nests too deeply, or is no JSON of this wire."}'
)
TOO_LARGE = "A message or its answer is too large."
TOO_LARGE_ERROR = b'{"status":"error","message":"%b"}' % TOO_LARGE.encode()
"""In the place of an answer that is larger than one of the two ends allows."""
TOO_OLD_ERROR = b'{"status":"error","message":"The stream went on for too long"}'
"""The end of a stream of which nobody says whether it is still read."""
TOO_DEEP = b"(" + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
"""In the place of an answer that nests too deeply: no JSON, and so deep itself that
whatever reads it says so."""

_LONGEST_ID = 4096


def unreadable(
    id_: Any,
    reason: str = "it nests too deeply, or a number is out of range",
    error: bytes = UNREADABLE,
) -> Reply | None:
    """Return the error reply, or ``None`` where it cannot be told who asks.

    ``reason`` is for our log alone.
    """
    if not is_answerable(id_):
        return None
    logger.warning("Refused a request: %s.", reason)
    return Reply(id_, None, error)


def is_answerable(id_: Any) -> bool:
    """Whether an id is sent back: no list or object, nor what is very long."""
    return (
        id_ is not UNSET
        and not isinstance(id_, dict | list)
        and len(str(id_)) <= _LONGEST_ID
    )
