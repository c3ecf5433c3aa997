"""Checks of the connections that sync handlers keep."""

import pytest
from django.db import connections

from .running import SYNC, Write, found, ids, one, served

ASYNC = "@message_pattern('a')\nasync def a(data): ..."
ASYNC_ORM = "@message_pattern('a', uses_database=True)\nasync def a(data): ..."


@pytest.mark.parametrize("text", [SYNC, ASYNC_ORM])
def test_connection_per_message(handlers: Write, text: str) -> None:
    """Both ages at 0 mean a connection for each message."""
    name = handlers(text)
    message = one(found(SERVERS=served(name), DATABASE_MAX_AGE=0), "W003")
    assert "CONN_MAX_AGE of 'default'" in message.msg


def test_no_connection_per_message(
    handlers: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means nothing without sync handlers, or where Django keeps connections."""
    assert ids(found(SERVERS=served(handlers(ASYNC)), DATABASE_MAX_AGE=0)) == []
    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 60)
    assert ids(found(SERVERS=served(handlers(SYNC)), DATABASE_MAX_AGE=0)) == []


def test_kept_connections(handlers: Write) -> None:
    """For production it is told how many connections are kept."""
    name = handlers(SYNC)
    messages = found(deploy=True, SERVERS=served(name), SYNC_THREADS=3)
    message = one(messages, "I002")
    assert "for 60 s" in message.msg
    assert "up to 7 connections" in (message.hint or "")


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("DATABASE_MAX_AGE", "a"),
        ("SYNC_THREADS", "8"),
        ("SYNC_THREADS", None),
        ("STREAM_THREADS", [4]),
    ],
)
def test_database_while_settings_are_wrong(
    handlers: Write, entry: str, value: object, *, deploy: bool
) -> None:
    """A wrong age or number of threads is one error."""
    servers = served(handlers(SYNC))
    messages = found(deploy=deploy, SERVERS=servers, **{entry: value})
    assert ids(messages) == ["E001"]
