"""Subjects: the routes of patterns, and which of them may be one.

Subjects are cut into tokens by dots; ``*`` stands for one token and ``>`` for all that
follow. Source: https://docs.nats.io/nats-concepts/subjects.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from ...wire.patterns import NATS
from ...wire.text import shown

LONGEST = 1024
"""Bytes of a subject: the line that names it, and a reply subject, has 4096 at most."""

INBOX = "_INBOX"
"""How the subjects begin on which answers come, unless told otherwise."""

_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


class Interest(NamedTuple):
    """What a server subscribes to: a subject, in a queue group unless that is empty.

    ``overlaps`` says that another one brings copies of the same messages.
    """

    subscription: Subscription
    subject: bytes
    queue: bytes
    overlaps: bool


@functools.lru_cache(maxsize=4096)
def subject_of(route: str) -> bytes:
    """Return the subject to which a caller's message goes.

    Raises :class:`ValueError` for what cannot be one, for wildcards, and for subjects
    that are not for messages: those of the server itself, and inboxes.
    """
    subject = _checked(route)
    if NATS.is_wildcard(route):
        raise _error(route, "has wildcards")
    if route.startswith(("$", f"{INBOX}.")):
        raise _error(route, "belongs to NATS itself")
    return subject


def _checked(route: str) -> bytes:
    if _FORBIDDEN.search(route):
        raise _error(route, "has spaces or control characters")
    if "" in route.split("."):
        raise _error(route, "is empty, or has an empty part between dots")
    try:
        subject = route.encode()
    except UnicodeEncodeError:
        raise _error(route, "has half a surrogate pair") from None
    if len(subject) > LONGEST:
        raise _error(route, f"is longer than {LONGEST} bytes")
    return subject


def _error(route: str, reason: str) -> ValueError:
    return ValueError(
        f"The pattern {shown(route)!r} is no subject of NATS: it {reason}."
    )


def check_prefix(option: str, prefix: str) -> None:
    """Raise :class:`ValueError` for what no subject can begin with."""
    try:
        _checked(prefix)
    except ValueError:
        fits = False
    else:
        fits = not NATS.is_wildcard(prefix)
    if not fits:
        message = f"{option}: no subject can begin with {shown(prefix)!r}."
        raise ValueError(message)


def check_queue(queue: str) -> None:
    """Raise :class:`ValueError` for what no queue group can be called."""
    if _FORBIDDEN.search(queue):
        message = f"queue: {shown(queue)!r} has spaces or control characters."
        raise ValueError(message)


def group_name(group: str | None) -> str:
    """Return the queue group of a consumer group, whose name may be anything."""
    return _FORBIDDEN.sub("_", group or "")


def is_inbox(subject: bytes, prefixes: tuple[bytes, ...]) -> bool:
    """Whether answers may be sent to a subject that a caller named.

    It must begin with one of ``prefixes``, and name one inbox, not many.
    """
    return (
        subject.startswith(prefixes)
        and b"*" not in subject
        and b">" not in subject
        and len(subject) <= LONGEST
    )


def is_wide(subject: bytes) -> bool:
    """Whether a subscription also brings the answers that everybody gets."""
    return subject.startswith((b"*", b">"))


def interests(subscriptions: Sequence[Subscription], queue: str) -> list[Interest]:
    """Return what to subscribe to, each pattern once, in the group ``queue``.

    NATS takes equal queue names on overlapping subjects for one group, and gives a
    message to one of its members. So patterns that overlap get queue names of their
    own (``<queue>:<pattern>``), and a copy of the message comes for each.

    Raises :class:`TransportRefused` for a pattern that cannot be a subject, and for
    handlers of one pattern that name different queues or impossible ones.
    """
    found = {s.pattern.route: s for s in subscriptions}
    try:
        queues = _queues(subscriptions, queue)
        return [_interest(s, queues) for s in found.values()]
    except ValueError as error:
        raise TransportRefused(str(error)) from None


def _interest(subscription: Subscription, queues: dict[str, str]) -> Interest:
    route = subscription.pattern.route
    others = [other for other in queues if _overlap(route, other)]
    queue = queues[route]
    if queue and any(queues[other] == queue for other in others):
        queue = f"{queue}:{route}"
    return Interest(subscription, _checked(route), queue.encode(), bool(others))


def _queues(subscriptions: Iterable[Subscription], default: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for subscription in subscriptions:
        route, own = subscription.pattern.route, subscription.options.get("queue")
        if own is None:
            continue
        check_queue(own)
        if named.setdefault(route, own) != own:
            message = (
                f"The handlers of {shown(route)!r} name different queues, "
                f"{named[route]!r} and {own!r}: on one server they share one."
            )
            raise ValueError(message)
    return {s.pattern.route: named.get(s.pattern.route, default) for s in subscriptions}


def _overlap(one: str, other: str) -> bool:
    """Two subjects without wildcards never overlap, unless they are one."""
    if one == other or not (NATS.is_wildcard(one) or NATS.is_wildcard(other)):
        return False
    return NATS.overlaps(one, other)
