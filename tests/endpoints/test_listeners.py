"""Callbacks that hear of an end's connection."""

import logging

import pytest

from django_microservices.endpoints.listeners import Listeners


def test_everybody_is_told() -> None:
    """All callbacks of an event are called, with its arguments, in order."""
    heard: list[object] = []
    listeners = Listeners()
    listeners.add("error", lambda error: heard.append(("first", error)))
    listeners.add("error", lambda error: heard.append(("second", error)))
    listeners.call("error", "lost")
    assert heard == [("first", "lost"), ("second", "lost")]


def test_other_events_are_not_told() -> None:
    """A callback hears of its own event only."""
    heard: list[str] = []
    listeners = Listeners()
    listeners.add("connect", lambda: heard.append("connect"))
    listeners.call("disconnect")
    assert heard == []


def test_unknown_event() -> None:
    """An event that does not exist is refused, with those that do."""
    with pytest.raises(ValueError, match="'closed'; there are connect, disconnect"):
        Listeners().add("closed", print)


def test_failing_callback(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that fails is logged, and the next one is called."""
    heard: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    listeners = Listeners()
    listeners.add("connect", fail)
    listeners.add("connect", lambda: heard.append("connect"))
    with caplog.at_level(logging.ERROR):
        listeners.call("connect")
    assert heard == ["connect"]
    assert "A callback for 'connect' failed." in caplog.text
