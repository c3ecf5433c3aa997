"""The headers of our own: what is said of a request, and what is read of it."""

from typing import Any

import pytest

from django_microservices.wire import headers as module
from django_microservices.wire.headers import (
    headers_of,
    metadata_of,
    own_headers,
    remaining,
)
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern


def message(id_: Any, **more: Any) -> Message:
    """Make a message."""
    return Message(Pattern.of("sum"), b"1", id_, **more)


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [(None, None), (2.5, "2500"), (0.0001, "1")],
)
def test_own_headers(timeout: float | None, expected: str | None) -> None:
    """A request says that we ask, and how many milliseconds we wait: at least one."""
    headers = own_headers(timeout)
    assert headers.pop("dm-peer") == "1"
    assert headers.get("dm-timeout") == expected


def test_user_cannot_replace_ours() -> None:
    """What a caller adds travels beside ours, and never instead."""
    headers = headers_of(message("7", headers={"a": "b", "dm-peer": "2"}, timeout=1))
    assert headers == {"a": "b", "dm-peer": "1", "dm-timeout": "1000"}


def test_ours_are_not_passed_on() -> None:
    """What was said of another message is said of none that passes its headers on."""
    passed_on = {"dm-peer": "1", "dm-timeout": "70", "dm-request-id": "r", "a": "b"}
    kept = {"dm-request-id": "r", "a": "b"}
    assert headers_of(message(UNSET, headers=passed_on)) == kept
    asked = headers_of(message("7", headers=passed_on))
    assert asked == kept | {"dm-peer": "1"}
    assert len(passed_on) == 4


def test_events_have_none_of_ours() -> None:
    """Nobody waits for an event: only the caller's own headers travel."""
    assert headers_of(message(UNSET)) is None
    assert headers_of(message(UNSET, headers={"a": "b"})) == {"a": "b"}


def test_metadata_is_their_json() -> None:
    """Where the packet carries them, they are an object; an event may have none."""
    assert metadata_of(message(UNSET)) is None
    assert metadata_of(message(UNSET, headers={"a": "b"})) == b'{"a":"b"}'
    asked = message("7", timeout=1.5)
    for _ in range(2):
        assert metadata_of(asked) == b'{"dm-peer":"1","dm-timeout":"1500"}'
    asked = message("7", headers={"a": "b"})
    assert metadata_of(asked) == b'{"a":"b","dm-peer":"1"}'


def test_callers_cannot_fill_the_memory() -> None:
    """However many timeouts are used, few of their texts are kept."""
    for number in range(1, 5_000):
        text = b'{"dm-peer":"1","dm-timeout":"%d"}' % number
        assert metadata_of(message("7", timeout=(number + 0.5) / 1000)) == text
    assert len(module._metadata) <= module._MOST_KNOWN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1500", 1.5),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 10, None),
    ],
)
def test_remaining(text: str | None, expected: float | None) -> None:
    """The caller's patience in seconds; what is no number says nothing."""
    headers = {} if text is None else {"dm-timeout": text}
    assert remaining(headers) == expected
    assert remaining(headers) == expected


def test_peers_cannot_fill_the_memory() -> None:
    """However many timeouts peers make up, few are kept."""
    for number in range(5_000):
        assert remaining({"dm-timeout": str(number + 10)}) == (number + 10) / 1000
