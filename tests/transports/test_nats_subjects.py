"""Which patterns are subjects, and in which queue groups they are subscribed to."""

from typing import Any

import pytest

from django_microservices import TransportRefused
from django_microservices.transports.nats.subjects import (
    LONGEST,
    check_prefix,
    group_name,
    interests,
    is_inbox,
    subject_of,
)
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import Pattern

PREFIXES = (b"_INBOX.", b"mine.")


def listening(*routes: Any, queue: str = "orders", **queues: str) -> dict[str, str]:
    """Return the queue of each subject, for handlers of these patterns."""
    found = interests([subscription(route) for route in routes], queue)
    return {one.subject.decode(): one.queue.decode() for one in found}


def subscription(pattern: Any, **options: Any) -> Subscription:
    """Make one as a handler does."""
    return Subscription(Pattern.of(pattern), "event", options)


@pytest.mark.parametrize(
    "route", ["sum", "orders.created", '{"cmd":"sum"}', "größe", "a*b", "a.b>c", "🚀"]
)
def test_subject_of_a_pattern(route: str) -> None:
    """A route is the subject as it is."""
    assert subject_of(route) == route.encode()


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ("", "is empty"),
        ("a b", "has spaces"),
        ('{"cmd":"a b"}', "has spaces"),
        ("a\tb", "has spaces"),
        ("a\r\nPUB b 0", "has spaces"),
        ("a\0b", "control characters"),
        ("a..b", "empty part"),
        (".a", "empty part"),
        ("a.", "empty part"),
        ("a.*", "has wildcards"),
        ("a.>", "has wildcards"),
        (">", "has wildcards"),
        ("$SYS.x", "belongs to NATS"),
        ("$JS.API.STREAM.DELETE.events", "belongs to NATS"),
        ("_INBOX.abc.1", "belongs to NATS"),
        ("x" * (LONGEST + 1), "is longer"),
        ("half \ud83d".replace(" ", ""), "half a surrogate"),
    ],
)
def test_name_that_is_no_subject(route: str, why: str) -> None:
    """What would be another command, or somebody else's subject, is refused."""
    with pytest.raises(ValueError, match=why):
        subject_of(route)


@pytest.mark.parametrize("inbox", [b"_INBOX.abc", b"_INBOX.abc.1", b"mine.x"])
def test_inbox_is_answered(inbox: bytes) -> None:
    """Answers go to inboxes, also to those of one's own prefix."""
    assert is_inbox(inbox, PREFIXES)


@pytest.mark.parametrize(
    "subject",
    [
        b"",
        b"orders.delete",
        b"_INBOX",
        b"_INBOXES.a",
        b"_INBOX.*",
        b"_INBOX.>",
        b"minex",
        b"$SYS.REQ.SERVER.PING",
        b"_INBOX." + b"x" * LONGEST,
    ],
)
def test_other_subject_is_not_answered(subject: bytes) -> None:
    """A reply subject that a stranger names may be anybody's."""
    assert not is_inbox(subject, PREFIXES)


@pytest.mark.parametrize("prefix", ["", "a b", "a.*", ">", "a..b"])
def test_prefix_that_begins_no_subject(prefix: str) -> None:
    """A prefix is a subject without wildcards, and the message names the option."""
    with pytest.raises(ValueError, match="inbox_prefix"):
        check_prefix("inbox_prefix", prefix)
    check_prefix("inbox_prefix", "_INBOX.orders")


def test_group_name_has_no_spaces() -> None:
    """A service may be called anything."""
    assert group_name("my orders") == "my_orders"
    assert group_name(None) == ""


def test_patterns_apart_share_the_queue() -> None:
    """Patterns that do not overlap are in the service's one queue group."""
    found = listening("a", "b.*", "c.>", {"cmd": "x"})
    assert found == dict.fromkeys(["a", "b.*", "c.>", '{"cmd":"x"}'], "orders")


def test_overlapping_patterns_have_queues_of_their_own() -> None:
    """NATS would give a message to one of them only."""
    assert listening("a.b", "a.*", "c") == {
        "a.b": "orders:a.b",
        "a.*": "orders:a.*",
        "c": "orders",
    }


def test_without_a_queue_there_is_none() -> None:
    """Nest's arrangement: everybody gets everything."""
    assert listening("a.b", "a.*", queue="") == {"a.b": "", "a.*": ""}


def test_handler_names_its_queue() -> None:
    """A handler's own queue counts; only equal names on overlapping subjects meet."""
    found = interests(
        [
            subscription("a.b", queue="mine"),
            subscription("a.*"),
            subscription("a.b"),
            subscription("c", queue=""),
        ],
        "orders",
    )
    assert [(one.subject, one.queue, one.overlaps) for one in found] == [
        (b"a.b", b"mine", True),
        (b"a.*", b"orders", True),
        (b"c", b"", False),
    ]


def test_handlers_of_one_pattern_cannot_differ() -> None:
    """Of one server a pattern is subscribed to once."""
    with pytest.raises(TransportRefused, match="'mine' and 'yours'"):
        interests(
            [subscription("a", queue="mine"), subscription("a", queue="yours")], ""
        )


@pytest.mark.parametrize("route", ["a b", "a..b", ""])
def test_handler_whose_pattern_is_no_subject(route: str) -> None:
    """A server that could never hear of a pattern does not start."""
    with pytest.raises(TransportRefused, match="is no subject"):
        interests([subscription(route)], "orders")


def test_queue_with_a_space() -> None:
    """Nor does one whose queue has no possible name."""
    with pytest.raises(TransportRefused, match="queue"):
        interests([subscription("a", queue="a b")], "")
