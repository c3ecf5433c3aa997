"""What a test sees of a message."""

import datetime
from typing import Any

import pytest

from django_microservices import UNSET, Event, Request
from django_microservices.testing import ANY, Sent
from django_microservices.testing.sent import plain_of, route_of, told
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern


def test_request() -> None:
    """A message is seen as plain Python."""
    pattern = Pattern.of({"cmd": "a"})
    sent = Sent.of(Message(pattern, b"[1]", 1, {"x": "y"}, 2.0))
    assert (sent.pattern, sent.data, sent.is_event) == ({"cmd": "a"}, [1], False)
    assert (sent.headers, sent.timeout) == ({"x": "y"}, 2.0)


def test_event() -> None:
    """An event has no id, and may have no payload."""
    sent = Sent.of(Message(Pattern.of("a"), UNSET))
    assert (sent.data, sent.is_event, sent.headers) == (UNSET, True, {})


def test_equality() -> None:
    """Two are equal by pattern and payload, so that a test can spell them out."""
    sent = Sent.of(Message(Pattern.of("a"), b"1", 1, {"x": "y"}))
    assert sent == Sent("a", 1)
    assert sent == Sent("a")
    assert sent != Sent("a", 2)
    assert sent != Sent("b", 1)


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        ("a", {"b": 1}, True),
        ("a", ANY, True),
        ("a", {"b": ANY}, True),
        ("a", {"b": 2}, False),
        ("b", {"b": 1}, False),
    ],
)
def test_is_like(pattern: Any, data: Any, expected: bool) -> None:  # noqa: FBT001
    """A payload may be anything, or anything in places."""
    assert Sent("a", {"b": 1}).is_like(pattern, data) is expected


def test_shown() -> None:
    """A message is named by pattern and payload."""
    assert str(Sent({"cmd": "a"}, [1])) == "{'cmd': 'a'} with [1]"
    assert told(Event("a", int), 1) == "'a' with 1"


def test_route() -> None:
    """A contract stands for its pattern."""
    assert route_of(Request({"cmd": "a"}, int, int)) == '{"cmd":"a"}'
    assert route_of(Event("a", int)) == route_of("a") == "a"


def test_plain() -> None:
    """What a test expects is compared as it arrives."""
    assert plain_of({"day": datetime.date(2026, 1, 2), 1: (2,)}) == {
        "day": "2026-01-02",
        "1": [2],
    }
    assert plain_of(ANY) is ANY
    assert plain_of(UNSET) is UNSET
    assert plain_of({"a": ANY}) == {"a": ANY}
