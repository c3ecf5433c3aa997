"""What becomes of a message that failed: the same policy on every wire."""

import random
from collections.abc import Mapping
from typing import Any

LONGEST_DELAY = 60.0
"""Seconds between two tries, at most."""

GIVEN_BACK = "cancelled"
"""The reason of a delivery that its server gives back because it stops."""

REASON_HEADER = "dm-reason"
"""On a dead letter: why it is one."""
DELIVERIES_HEADER = "dm-deliveries"
"""... how often it was delivered."""
GROUP_HEADER = "dm-group"
"""... and where it was, as the wire has it: this and the next ones."""
STREAM_HEADER = "dm-stream"
SEQUENCE_HEADER = "dm-sequence"
SUBJECT_HEADER = "dm-subject"
ID_HEADER = "dm-id"
_OF_LETTERS = frozenset(
    (
        REASON_HEADER,
        DELIVERIES_HEADER,
        GROUP_HEADER,
        STREAM_HEADER,
        SEQUENCE_HEADER,
        SUBJECT_HEADER,
        ID_HEADER,
    )
)


def headers_of_letter(
    headers: Mapping[str, str] | None, reason: str, deliveries: int
) -> dict[str, str]:
    """Return the headers of a dead letter: the message's, and what became of it.

    A message may have been a dead letter that somebody sent once more: what stands
    there of that one is left out.
    """
    kept = {k: v for k, v in (headers or {}).items() if k not in _OF_LETTERS}
    return kept | {REASON_HEADER: reason, DELIVERIES_HEADER: str(deliveries)}


def is_given_back(delivery: Any) -> bool:
    """Whether its server stops; a handler's own reasons are those of dead letters."""
    return bool(delivery.outcome == "retry" and delivery.reason == GIVEN_BACK)


class Redelivery:
    """How often a message is delivered, and how long it rests before each new try.

    ``max_deliveries`` counts the first one. The rests are drawn at random up to a bound
    that begins at ``delay`` seconds and doubles ("full jitter").
    """

    def __init__(self, max_deliveries: int = 5, delay: float = 1.0) -> None:
        self.max_deliveries = max_deliveries
        self.delay = delay

    def after(self, deliveries: int) -> float | None:
        """Return the seconds until the next try, or ``None``: a dead letter.

        ``deliveries`` is how often the message was delivered so far.
        """
        if deliveries >= self.max_deliveries:
            return None
        bound = min(LONGEST_DELAY, self.delay * 2 ** min(deliveries - 1, 30))
        return random.uniform(0, bound)  # noqa: S311 - spreads load, keeps no secret


class Receipt:
    """What a broker wants to know of one delivery, told once: the first call counts."""

    __slots__ = ("is_settled",)

    def __init__(self) -> None:
        self.is_settled = False

    def settle(
        self, outcome: str, delay: float | None = None, reason: str = ""
    ) -> None:
        """Tell the broker, on the loop, unless it was told."""
        if not self.is_settled:
            self.is_settled = True
            self.tell(outcome, delay, reason)

    def finished(self, delivery: Any) -> None:
        """Tell the broker the delivery's own outcome."""
        self.settle(delivery.outcome, delivery.delay, delivery.reason)

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, have it delivered again (after ``delay``), or bury it."""
        raise NotImplementedError
