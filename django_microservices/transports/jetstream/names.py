"""Names in JetStream: of streams, of consumers, and what a consumer's ack tells."""

import hashlib
import re
from typing import NamedTuple

LONGEST = 48  # characters of a pattern in a consumer's name

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_ACK = ("$JS", "ACK")
_OLD_FIELDS = 9


def check_name(option: str, name: str) -> None:
    """Raise ``ValueError`` for what cannot be the name of a stream."""
    if not name or _NOT_IN_NAMES.search(name):
        message = f"{option}: {name!r} is not of letters, digits, '_' and '-'."
        raise ValueError(message)


def name_of(text: str) -> str:
    """Return a name that stands for ``text``, and for no other text."""
    short = _NOT_IN_NAMES.sub("_", text[:LONGEST])
    if short == text:
        return text
    return f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def consumer_name(group: str, pattern: str) -> str:
    """Return the name of a service's consumer of a pattern, which no other one has."""
    return f"{name_of(group)}={name_of(pattern)}"


class Delivered(NamedTuple):
    """What the subject of an acknowledgement tells of the message."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    nanoseconds: int
    pending: int


def delivered(subject: str) -> Delivered | None:
    """Read ``$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>...``.

    Newer servers put the domain and the account in front of the stream. ``None`` is
    what comes from somebody else.
    """
    tokens = subject.split(".")
    fields = tokens[2:] if len(tokens) == _OLD_FIELDS else tokens[4:]
    if tuple(tokens[:2]) != _ACK or len(fields) < _OLD_FIELDS - 2:
        return None
    stream, consumer, deliveries, sequence, _, time, pending = fields[:7]
    try:
        return Delivered(
            stream, consumer, int(deliveries), int(sequence), int(time), int(pending)
        )
    except ValueError:
        return None
