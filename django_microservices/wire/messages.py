"""A Message and its Reply, as they stand between an end and a transport."""

import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Callable

    from .patterns import Pattern

__all__ = ["UNSET", "Message", "Reply", "Subscription", "UnsetType", "new_id"]


class Subscription(msgspec.Struct, frozen=True):
    """One thing that a server listens for."""

    pattern: "Pattern"
    kind: str  # "request" or "event"
    options: dict[str, Any] = {}  # the decorator's: queue=, qos=, ...


class Message(msgspec.Struct, eq=False):
    """A request (with an ``id``) or an event (without).

    ``data`` is the encoded payload, or, on transports with a codec of their own, a
    value or an async iterator; ``id`` any JSON value (Nest echoes its type), and
    ``UNSET`` in an event; ``timeout`` the seconds that remain of the caller's patience.
    On the server ``subscription`` is the one that this copy came by, where the wire
    makes a copy for each that matches, and ``settle(outcome, delay, reason)`` tells the
    broker what became of it, where the wire acknowledges. On the client ``options``
    are those of this one message (``priority``, ``qos``, ...).
    """

    pattern: "Pattern"
    data: Any
    id: Any = UNSET
    headers: dict[str, str] | None = None
    timeout: float | None = None
    subscription: Subscription | None = None
    wire: Any = None
    options: Any = None
    stream: bool = False
    settle: "Callable[[str, float | None, str], None] | None" = None

    @property
    def is_event(self) -> bool:
        """Whether nobody answers."""
        return self.id is UNSET


class Reply(msgspec.Struct, eq=False, gc=False):
    """One packet of an answer.

    ``data`` and ``error`` are encoded JSON (``None``: absent, JavaScript's undefined);
    ``last`` ends the answer; ``missing`` says that nobody handles the pattern.
    """

    id: Any
    data: bytes | msgspec.Raw | None = None
    error: bytes | None = None
    last: bool = True
    missing: bool = False


_ids: list[str] = []
_ID_DIGITS = 20


def new_id() -> str:
    """Return a fresh, unguessable request id.

    Reply channels of Redis and MQTT are shared by all clients, so ids are unique
    across processes: 80 random bits, drawn 256 at a time because ``urandom`` is a
    system call.
    """
    try:
        return _ids.pop()
    except IndexError:
        digits = os.urandom(_ID_DIGITS * 128).hex()
        starts = range(0, len(digits), _ID_DIGITS)
        _ids.extend([digits[start : start + _ID_DIGITS] for start in starts])
        return _ids.pop()


# A child process would hand out the same ids as its parent.
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_ids.clear)
