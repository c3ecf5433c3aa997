"""Clients and servers by name."""

from django_microservices.endpoints.named import Ends


def ends() -> Ends[list[str]]:
    """Make ends that are lists."""
    return Ends(lambda: ["a", "b"], lambda name: [name])


def test_one_for_each_name() -> None:
    """A name gives the same end each time, made at its first use."""
    found = ends()
    assert found.all() == []
    assert found["a"] is found["a"]
    assert found.all() == [["a"]]


def test_names() -> None:
    """Iterating gives the names that there are."""
    assert list(ends()) == ["a", "b"]


def test_anew() -> None:
    """Cleared, it makes each end anew."""
    found = ends()
    before = found["a"]
    found.clear()
    assert found["a"] is not before
