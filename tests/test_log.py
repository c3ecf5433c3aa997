"""MessageFilter, and where records go by default."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from django_microservices.log import LOGGER, MessageFilter, show_on_console
from django_microservices.wire.context import (
    REQUEST_ID_HEADER,
    MessageContext,
    current,
    outer_request_id,
)
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern

FIELDS = ("request_id", "message_id", "pattern", "server", "handler")


def context_of(pattern: Any = "echo", id_: Any = "7") -> MessageContext[Any]:
    """Make the context of a message."""
    message = Message(Pattern.of(pattern), b"1", id_, {REQUEST_ID_HEADER: "abc"})
    return MessageContext(message, SimpleNamespace(name="app.echo"), "default")


def described(**extra: Any) -> list[str]:
    """Pass a record through the filter, and return what that put on it."""
    record = logging.makeLogRecord(extra)
    assert MessageFilter().filter(record)
    return [getattr(record, name) for name in FIELDS]


@pytest.fixture
def message() -> Iterator[MessageContext[Any]]:
    """Handle a message."""
    context = context_of()
    token = current.set(context)
    yield context
    current.reset(token)


@contextmanager
def unconfigured() -> Iterator[logging.Logger]:
    """Take the package's logger as nobody configured it: pytest listens at the root."""
    logger = logging.getLogger(LOGGER)
    kept = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [], False
    logger.setLevel(logging.NOTSET)
    try:
        yield logger
    finally:
        logger.handlers, logger.propagate = kept[:2]
        logger.setLevel(kept[2])


def test_without_a_message() -> None:
    """Outside of any message every attribute is a dash."""
    assert described() == ["-"] * 5


@pytest.mark.usefixtures("message")
def test_with_a_message() -> None:
    """In a handler the record names the message."""
    assert described() == ["abc", "7", "echo", "default", "app.echo"]


def test_event_has_no_id() -> None:
    """An event has no message id."""
    message = Message(Pattern.of("noted"), b"1", headers={REQUEST_ID_HEADER: "abc"})
    given = MessageContext[Any](message)
    assert described(message_context=given) == ["abc", "-", "noted", "-", "-"]


def test_record_of_another_message() -> None:
    """A record that brings its message names that one, wherever it was made."""
    assert described(message_context=context_of())[2] == "echo"


def test_in_a_view() -> None:
    """In a view the id of the HTTP request is there."""
    token = outer_request_id.set("http-1")
    assert described() == ["http-1", *"----"]
    outer_request_id.reset(token)


def test_after_the_view() -> None:
    """Django's own record of a 404 is made later, and brings the HTTP request."""
    request = SimpleNamespace(request_id="http-1")
    assert described(request=request) == ["http-1", *"----"]


def test_request_without_an_id() -> None:
    """What is no HTTP request of ours, such as runserver's socket, has no id."""
    assert described(request=object()) == ["-"] * 5


def test_values_are_escaped() -> None:
    """A peer cannot begin a line of its own."""
    given = context_of("a\nERROR forged")
    assert described(message_context=given)[2] == "a\\nERROR forged"


def test_values_are_cut() -> None:
    """A peer cannot fill the log with one name."""
    assert len(described(message_context=context_of("x" * 9999))[2]) < 300


def test_console_when_nobody_configured(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of INFO are written to stderr."""
    with unconfigured():
        show_on_console()
        logging.getLogger(f"{LOGGER}.endpoints").info("request echo ok")
    assert capsys.readouterr().err.endswith("INFO request echo ok\n")


def test_console_only_once() -> None:
    """A second call adds nothing."""
    with unconfigured() as logger:
        show_on_console()
        show_on_console()
        assert len(logger.handlers) == 1


def test_console_left_to_the_configured() -> None:
    """A logger that has a handler is left alone."""
    with unconfigured() as logger:
        logger.addHandler(logging.NullHandler())
        show_on_console()
        assert len(logger.handlers) == 1
        assert logger.level == logging.NOTSET


def test_console_keeps_a_level() -> None:
    """A level that was set stays."""
    with unconfigured() as logger:
        logger.setLevel(logging.ERROR)
        show_on_console()
        assert logger.level == logging.ERROR
