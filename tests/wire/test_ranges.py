"""What a number may be."""

import math

import pytest

from django_microservices.wire.ranges import Range


@pytest.mark.parametrize(
    ("admitted", "value"),
    [
        (Range(), 0),
        (Range(over=True), 0.001),
        (Range(1), 1),
        (Range(0, 65_535), 65_535),
        (Range(-1), -1),
    ],
)
def test_numbers_within(admitted: Range, value: float) -> None:
    """The ends belong to it, unless it begins over one."""
    assert admitted.admits(value)


@pytest.mark.parametrize(
    ("refusing", "value"),
    [
        (Range(), -1),
        (Range(over=True), 0),
        (Range(1), 0),
        (Range(0, 65_535), 65_536),
        (Range(), math.nan),
        (Range(), math.inf),
        (Range(-1), -math.inf),
    ],
)
def test_numbers_outside(refusing: Range, value: float) -> None:
    """NaN and the infinities are outside of every range."""
    assert not refusing.admits(value)


@pytest.mark.parametrize(
    ("range_", "text"),
    [
        (Range(over=True), "a number over 0"),
        (Range(1), "a number of at least 1"),
        (Range(0, 255), "0 to 255"),
    ],
)
def test_words(range_: Range, text: str) -> None:
    """A message says what was expected."""
    assert str(range_) == text
