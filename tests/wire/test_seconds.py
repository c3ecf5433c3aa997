"""A time as people write it."""

import datetime
from typing import Any

import pytest

from django_microservices.wire.seconds import seconds_of


@pytest.mark.parametrize("given", [2, 2.0, datetime.timedelta(seconds=2)])
def test_seconds(given: Any) -> None:
    """A number is seconds, and a timedelta knows its own."""
    assert seconds_of(given, "X") == 2.0


@pytest.mark.parametrize("given", ["5", True, None, object, b"5"])
def test_no_number(given: Any) -> None:
    """What is no number is a TypeError that says what is wrong."""
    with pytest.raises(TypeError, match=r"^X: .* is not a number of seconds over 0\.$"):
        seconds_of(given, "X")


@pytest.mark.parametrize(
    "given",
    [0, -1, -0.5, float("nan"), float("inf"), 10**400, datetime.timedelta(-1)],
)
def test_no_time_to_wait(given: Any) -> None:
    """Neither nothing nor for ever is a time to wait."""
    with pytest.raises(
        ValueError, match=r"^X: .* is not a number of seconds over 0\.$"
    ):
        seconds_of(given, "X")


def test_zero() -> None:
    """Where zero may be, less may not."""
    assert seconds_of(0, "X", zero=True) == 0.0
    with pytest.raises(ValueError, match=r"of at least 0\.$"):
        seconds_of(-1, "X", zero=True)
