"""What Redis refuses: for now, for good, or because somebody took something away.

The texts are those of its ``server.c``, ``networking.c`` and ``t_stream.c``.
"""

from ...exceptions import NotConnected, TransportRefused
from ...wire.text import shown
from .protocol import ReplyError

_FOR_GOOD = ("ERR", "WRONGTYPE", "WRONGPASS", "NOPERM", "NOAUTH", "NOPROTO", "DENIED")
_AND_YET = ("ERR max number of clients",)
_GONE = ("NOGROUP", "UNBLOCKED", "ERR no such key")


def passes(error: ReplyError) -> bool:
    """Whether what Redis refuses now may work later."""
    text = str(error)
    return text.startswith(_AND_YET) or not text.startswith(_FOR_GOOD)


def refusal(place: object, error: ReplyError) -> NotConnected | TransportRefused:
    """Make the error of it, for who would connect to ``place`` or uses it."""
    message = f"{place} refuses: {shown(str(error))}"
    return NotConnected(message) if passes(error) else TransportRefused(message)


def is_gone(error: ReplyError) -> bool:
    """Whether a group or a stream was deleted underneath."""
    return str(error).startswith(_GONE)


def is_foreign(error: ReplyError) -> bool:
    """Whether a key is of another kind."""
    return str(error).startswith("WRONGTYPE")
