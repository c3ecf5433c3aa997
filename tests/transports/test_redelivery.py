"""The policy for what failed, and that the broker is told once."""

from typing import Any

import pytest

from django_microservices.transports.redelivery import (
    LONGEST_DELAY,
    Receipt,
    Redelivery,
    headers_of_letter,
)


class Told(Receipt):
    """Notes what the broker is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, ...]] = []

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Note it."""
        self.told.append((outcome, delay, reason))


class Done:
    """A delivery that ended."""

    outcome, delay, reason = "retry", 3.0, "ValueError"


def test_rests_grow_at_random() -> None:
    """Each rest is drawn up to a bound that doubles."""
    policy = Redelivery(max_deliveries=4, delay=2.0)
    for deliveries, bound in ((1, 2.0), (2, 4.0), (3, 8.0)):
        rests = [policy.after(deliveries) for _ in range(100)]
        assert all(rest is not None and 0 <= rest <= bound for rest in rests)
        assert len(set(rests)) > 1


def test_rests_are_bounded() -> None:
    """However often it failed, a message rests for a minute at most."""
    rest = Redelivery(max_deliveries=10_000).after(9_000)
    assert rest is not None
    assert rest <= LONGEST_DELAY


def test_last_delivery() -> None:
    """After the last delivery a message is dead."""
    assert Redelivery(max_deliveries=3).after(3) is None


def test_headers_of_a_letter() -> None:
    """They are the message's, without what stands there of a letter of before."""
    old = {"a": "b", "dm-reason": "then", "dm-deliveries": "5", "dm-group": "g"}
    assert headers_of_letter(old, "now", 2) == {
        "a": "b",
        "dm-reason": "now",
        "dm-deliveries": "2",
    }
    assert headers_of_letter(None, "now", 1).keys() == {"dm-reason", "dm-deliveries"}


def test_first_call_counts() -> None:
    """What the handler decided stands, whatever the outcome is."""
    receipt = Told()
    receipt.settle("ack")
    receipt.finished(Done())
    assert receipt.told == [("ack", None, "")]


def test_automatic_outcome() -> None:
    """Without a word of the handler's the outcome is told."""
    receipt = Told()
    receipt.finished(Done())
    assert receipt.told == [("retry", 3.0, "ValueError")]


def test_wire_must_tell() -> None:
    """Each wire says how its broker is told."""
    with pytest.raises(NotImplementedError):
        Receipt().settle("ack")
