"""Names of topics and filters of MQTT: what is refused, and what is subscribed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.transports.mqtt.properties import LARGEST_LENGTH
from django_microservices.transports.mqtt.topics import (
    Filter,
    check_group,
    check_topic,
    filter_text,
    filters_of,
    separated,
)
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import MQTT, Pattern

LONGEST = 65_535 - len("/reply")


def subscription(pattern: Any, kind: str = "event", **options: Any) -> Subscription:
    """Make what a handler subscribes."""
    return Subscription(Pattern.of(pattern), kind, options)


# --- topics -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "/", "a//b", " ", '{"cmd":"sum"}', "größe/👍", "a$b", "x" * LONGEST],
)
def test_topic(name: str) -> None:
    """What MQTT allows is allowed, empty levels and spaces too."""
    assert check_topic(name) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "it is empty"),
        ("a/+", "a wildcard"),
        ("#", "a wildcard"),
        ("a+b", "a wildcard"),
        ("$SYS/x", r"begins with '\$'"),
        ("$share/g/a", r"begins with '\$'"),
        ("a\0b", "a control character"),
        ("a\nb", "a control character"),
        ("a\x7fb", "a control character"),
        ("a\x85b", "a control character"),
        ("a\ufdd0", "a control character"),
        ("a\uffff", "a control character"),
        ("a\U0001fffe", "a control character"),
        ("a\ud800", "half a surrogate"),
        ("x" * (LONGEST + 1), f"{LONGEST + 1} bytes, and {LONGEST} is the most"),
    ],
)
def test_no_topic(name: str, says: str) -> None:
    """What would make a broker hang up is refused before anything is sent."""
    with pytest.raises(ValueError, match=says):
        check_topic(name)


# --- filters ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "group", "text"),
    [
        ("a/b", "", "a/b"),
        ("a/b", "orders", "$share/orders/a/b"),
        ("a/+/#", "orders", "$share/orders/a/+/#"),
        ("$share/mine/a/+", "orders", "$share/mine/a/+"),
        ("$share/mine/a/+", "", "$share/mine/a/+"),
        ("$SYS/#", "", "$SYS/#"),
        ('{"cmd":"sum"}', "my service", '$share/my service/{"cmd":"sum"}'),
    ],
)
def test_filter(pattern: str, group: str, text: str) -> None:
    """A group shares the work; a pattern that names one keeps it."""
    assert filter_text(pattern, group) == text


@pytest.mark.parametrize(
    "pattern",
    ["", "a/#/b", "a/+x", "a#", "+a", "a\nb", "x" * 65_536, "$share/g/", '{"a":"+"}'],
)
def test_no_filter(pattern: str) -> None:
    """What MQTT would refuse is told with its name."""
    with pytest.raises(ValueError, match="is not a topic filter"):
        filter_text(pattern, "")


@pytest.mark.parametrize("name", ["a/b", "+", "a#", "a\n", "x" * 2000])
def test_no_group(name: str) -> None:
    """A group is one level of a topic."""
    with pytest.raises(ValueError, match="group"):
        check_group(name)


@pytest.mark.parametrize("pattern", ["$share/", "$share//a", "$share/a+/b"])
def test_pattern_with_no_group(pattern: str) -> None:
    """A shared subscription needs the name of its group."""
    with pytest.raises(ValueError, match=r"group|filter"):
        filter_text(pattern, "")


def test_filters() -> None:
    """Each text is subscribed once, with the highest QoS that is asked for."""
    found = filters_of(
        [
            subscription("a", "request"),
            subscription("a", qos=2),
            subscription("a", qos=0),
            subscription("b", qos=0),
            subscription("c", queue=""),
            subscription("d", queue="others"),
        ],
        "orders",
        1,
    )
    assert [(one.text, one.qos) for one in found] == [
        ("$share/orders/a", 2),
        ("$share/orders/b", 0),
        ("c", 1),
        ("$share/others/d", 1),
    ]
    assert [one.is_shared for one in found] == [True, True, False, True]


@pytest.mark.parametrize("qos", [3, -1, "1"])
def test_qos_that_is_none(qos: Any) -> None:
    """It is named with the handler's pattern."""
    with pytest.raises(ValueError, match=r"'a/b': qos="):
        filters_of([subscription("a/b", qos=qos)], "", 0)


def test_identifier_depends_on_the_text_alone() -> None:
    """Another process, with other handlers beside, gives the same one."""
    one, other = filters_of([subscription("a"), subscription("b")], "g", 0)
    (again,) = filters_of([subscription("b", "request", qos=1)], "g", 0)
    assert other.identifier == again.identifier != one.identifier
    assert 1 <= one.identifier <= LARGEST_LENGTH


# --- overlaps -----------------------------------------------------------------------

LEVELS = st.sampled_from(["a", "b", "+", ""])
PATTERNS = st.lists(LEVELS, min_size=1, max_size=3).map("/".join).filter(bool) | (
    st.lists(LEVELS, max_size=2).map(lambda levels: "/".join([*levels, "#"]))
)
NAMES = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=4).map("/".join)


@given(st.sets(PATTERNS, min_size=1, max_size=8), NAMES, st.randoms())
def test_parts_do_not_overlap(patterns: set[str], name: str, order: Any) -> None:
    """In a part at most one filter matches a topic; parts have every filter once."""
    filters = filters_of([subscription(one) for one in patterns], "g", 0)
    parts = separated(filters)
    assert sorted(one for part in parts for one in part) == sorted(filters)
    for part in parts:
        assert sum(one.matches(name) for one in part) <= 1
    order.shuffle(filters)
    assert separated(filters) == parts


def test_parts() -> None:
    """Only what overlaps is parted, across groups too."""
    patterns = ["a/b", "c", "a/+", "+/b", "$share/x/a/b", "d/#"]
    filters = filters_of([subscription(one) for one in patterns], "", 0)
    texts = [[one.text for one in part] for part in separated(filters)]
    assert texts == [["$share/x/a/b", "c", "d/#"], ["+/b"], ["a/+"], ["a/b"]]
    assert separated([]) == [[]]


def test_filter_matches_as_the_broker_does() -> None:
    """The group is no part of a topic's name."""
    one = Filter("$share/g/a/+", subscription("a/+"), 0)
    assert one.matches("a/")
    assert not one.matches("$share/g/a/x")
    assert not MQTT.matches("#", "$SYS/x")
