"""What a handler knows of its message."""

import math
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from django_microservices.wire.context import (
    MessageContext,
    current,
    current_context,
    current_request_id,
    outer_request_id,
)
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern


def context(data: Any = b"1", id_: Any = "7", **more: Any) -> MessageContext[Any]:
    """Make a context."""
    message = Message(Pattern.of({"b": 1, "a": 2}), data, id_)
    return MessageContext(message, server="default", **more)


def test_pattern_is_text() -> None:
    """An object pattern is shown in its canonical form."""
    assert context().pattern == '{"a":2,"b":1}'


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[1]", [1]),
        (msgspec.Raw(b'"\\ud83d"'), "\ud83d"),
        ({"a": 1}, {"a": 1}),
        (UNSET, UNSET),
    ],
)
def test_data_is_plain_python(data: Any, value: Any) -> None:
    """A payload is decoded where it is encoded, and as it is where it is not."""
    assert context(data).data == value


def test_data_is_decoded_once() -> None:
    """The same object every time."""
    one = context(b"[1]")
    assert one.data is one.data


def test_headers_can_be_set() -> None:
    """A message without metadata has headers all the same."""
    one = context()
    one.headers["a"] = "b"
    assert one.headers == {"a": "b"}
    assert one.message.headers == {"a": "b"}


def test_request_and_event() -> None:
    """A request has an id, an event none."""
    assert (context().message_id, context().is_event) == ("7", False)
    assert (context(id_=UNSET).message_id, context(id_=UNSET).is_event) == (None, True)
    assert (context(id_=None).message_id, context(id_=None).is_event) == (None, False)


def test_attributes_of_your_own() -> None:
    """Like Django's request, a context takes what middleware hangs on it."""
    one = context()
    one.tenant = "acme"  # type: ignore[attr-defined]
    assert one.tenant == "acme"  # type: ignore[attr-defined]


def test_wire() -> None:
    """What only the wire knows is what the transport gave."""
    one = context()
    one.message.wire = "wire"
    assert one.wire == "wire"


# --- request ids ---


def test_request_id_of_the_caller() -> None:
    """The header wins, and is kept."""
    one = context()
    one.headers["dm-request-id"] = "r1"
    assert one.request_id == "r1"
    one.headers["dm-request-id"] = "r2"
    assert one.request_id == "r1"


def test_request_id_without_a_header() -> None:
    """Else it is the message's own id, and an event's is made once."""
    assert context(id_=7).request_id == "7"
    event = context(id_=UNSET)
    assert len(event.request_id) == 20
    assert event.request_id == event.request_id


@pytest.mark.parametrize("odd", ["a\r\nb", "é", "x" * 129])
def test_request_id_that_is_none(odd: str) -> None:
    """What might break a header or a log record is replaced, as in HTTP."""
    one = context()
    one.headers["dm-request-id"] = odd
    assert len(one.request_id) == 20
    assert len(context(id_=odd).request_id) == 20


def test_current_request_id() -> None:
    """It is that of the message at hand, else of the HTTP request, else none."""
    assert current_context() is None
    assert current_request_id() is None
    outer = outer_request_id.set("http")
    assert current_request_id() == "http"
    one = context()
    token = current.set(one)
    assert current_context() is one
    assert current_request_id() == "7"
    current.reset(token)
    outer_request_id.reset(outer)


# --- settling ---


def test_settles() -> None:
    """The three verbs reach the wire."""
    seen: list[tuple[Any, ...]] = []
    one = context(settle=lambda *settled: seen.append(settled))
    one.ack()
    one.nack(delay=5)
    one.reject("bad")
    assert seen == [("ack", None, ""), ("retry", 5, ""), ("dead", None, "bad")]


def test_nack_after_a_timedelta() -> None:
    """The delay may be a timedelta, and may be none at all."""
    seen: list[tuple[Any, ...]] = []
    one = context(settle=lambda *settled: seen.append(settled))
    for delay in (timedelta(minutes=1), 0, None):
        one.nack(delay=delay)
    assert [delay for _, delay, _ in seen] == [60.0, 0.0, None]


@pytest.mark.parametrize("delay", ["5", True, math.nan, math.inf, -1, timedelta(-1)])
def test_nack_after_what_is_no_time(delay: Any) -> None:
    """Anything else is an error that names it, and decides nothing."""
    seen: list[tuple[Any, ...]] = []
    one = context(settle=lambda *settled: seen.append(settled))
    with pytest.raises((TypeError, ValueError), match=r"delay: .* of at least 0"):
        one.nack(delay=delay)
    assert seen == []


@pytest.mark.parametrize("verb", ["ack", "nack"])
def test_wire_without_acknowledgement(verb: str) -> None:
    """Where the wire acknowledges nothing, the verb says so and names the server."""
    says = "'default' acknowledges nothing"
    with pytest.raises(NotImplementedError, match=says):
        getattr(context(), verb)()
