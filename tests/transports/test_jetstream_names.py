"""Names in JetStream, and which subjects cover which."""

import pytest

from django_microservices.transports.jetstream.names import (
    Delivered,
    check_name,
    consumer_name,
    delivered,
    name_of,
)
from django_microservices.transports.jetstream.places import covers


@pytest.mark.parametrize("name", ["orders", "orders-created", "A_1"])
def test_name_that_is_one_already(name: str) -> None:
    """It is taken as it is."""
    check_name("stream", name)
    assert name_of(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "a>", "a/b", "ä", "a\n"])
def test_name_that_cannot_be_one(name: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match="stream: "):
        check_name("stream", name)


def test_texts_have_names_of_their_own() -> None:
    """Whatever a pattern is, its consumer has a name that no other one has."""
    texts = ["a.b", "a_b", "a.*", "a.>", '{"cmd":"x"}', "x" * 60, "x" * 61, "größe"]
    names = {name_of(text) for text in texts}
    assert len(names) == len(texts)
    for name in names:
        check_name("name", name)


def test_consumers_have_names_of_their_own() -> None:
    """Wherever one text ends and the other begins."""
    assert consumer_name("orders", "noted") == "orders=noted"
    pairs = [("a-b", "c"), ("a", "b-c"), ("a", "b.c"), ("a.b", "c"), ("a=b", "c")]
    assert len({consumer_name(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.ACK.events.orders.2.17.5.1700000000000000000.3",
        "$JS.ACK.hub.ACCOUNT.events.orders.2.17.5.1700000000000000000.3.token",
        "$JS.ACK._.ACCOUNT.events.orders.2.17.5.1700000000000000000.3",
    ],
)
def test_what_an_acknowledgement_tells(subject: str) -> None:
    """Old servers and new ones say the same."""
    expected = Delivered("events", "orders", 2, 17, 1700000000000000000, 3)
    assert delivered(subject) == expected


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "_INBOX.abc",
        "$JS.ACK.events.orders",
        "$JS.ACK.events.orders.x.17.5.1700000000000000000.3",
        "a.b.c.d.e.f.g.h.i",
    ],
)
def test_what_tells_nothing(subject: str) -> None:
    """Any other subject is no acknowledgement's."""
    assert delivered(subject) is None


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [("a", "a"), ("a.*", "a.b"), ("a.>", "a.b.c"), (">", "a.*"), ("*.b", "a.b")],
)
def test_subject_that_covers(wide: str, narrow: str) -> None:
    """All that the one matches the other matches too."""
    assert covers(wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("a", "b"),
        ("a.b", "a.*"),
        ("a.*", "a.>"),
        ("a.*", "a.b.c"),
        ("a.b.*", "a.b"),
        ("a.>", "a"),
        ("a.*", "*.b"),
    ],
)
def test_subject_that_does_not_cover(wide: str, narrow: str) -> None:
    """To overlap is not enough."""
    assert not covers(wide, narrow)
