"""Texts for people."""

from typing import Any

import pytest

from django_microservices.wire.text import LONGEST, shown, suggestion


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain text", "plain text"),
        ("a\r\nb\x1b[31m\x00", r"a\r\nb\x1b[31m\x00"),
        ("é\u2028\ud83d", r"\xe9\u2028\ud83d"),
        ({"a": 1}, "{'a': 1}"),
        (b"\n", r"b'\\n'"),
    ],
)
def test_one_line(value: Any, text: str) -> None:
    """Nothing of a stranger begins a second line or reaches the terminal."""
    assert shown(value) == text


@pytest.mark.parametrize("value", ["x" * LONGEST, "x" * 10**6, "\n" * LONGEST])
def test_cut(value: str) -> None:
    """Long values are cut, and say so."""
    text = shown(value)
    assert len(text) <= LONGEST + len("...")
    assert text.endswith("...") == (value != "x" * LONGEST)


def test_suggestion() -> None:
    """A name that is nearly right is guessed; for another one all are named."""
    assert suggestion("prot", {"port", "host"}) == "did you mean 'port'?"
    assert suggestion("x", {"port", "host"}) == "there is host, port."
    assert suggestion(7, ()) == "there is nothing to name."
