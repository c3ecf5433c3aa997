"""What a verb takes beside the pattern and the data."""

from collections import UserDict
from typing import Any

import pytest

from django_microservices.endpoints.arguments import headers_of, options_of
from django_microservices.transports.base import MESSAGE_OPTIONS, Transport


class Wire(Transport):
    """A wire that knows an option of its own."""

    message_options = frozenset(("partition",))


def test_headers() -> None:
    """Texts by name, in a dict that is the call's own."""
    given = {"tenant": "a"}
    assert headers_of(given) == headers_of(UserDict(given)) == given
    assert headers_of(given) is not given


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([("tenant", "a")], "headers: [['tenant', 'a']] is not a mapping."),
        ({"tenant": 7}, "headers['tenant']: a header is a text, not int."),
        ({"tenant": None}, "headers['tenant']: a header is a text, not NoneType."),
        ({7: "a"}, "headers[7]: a header is a text, not int."),
        ({"token": b"s3cret"}, "headers['token']: a header is a text, not bytes."),
    ],
)
def test_wrong_headers(given: Any, text: str) -> None:
    """Anything else is named, and its value is not told."""
    with pytest.raises(TypeError) as caught:
        headers_of(given)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", [*sorted(MESSAGE_OPTIONS), "partition"])
def test_options(name: str) -> None:
    """What any wire knows may be said on each, and what this one knows."""
    assert options_of({name: 1}, Wire()) == {name: 1}


def test_options_of_another_wire() -> None:
    """An option of one wire alone is unknown to the others."""
    with pytest.raises(TypeError, match=r"^options\['partition'\]: unknown; "):
        options_of({"partition": 1}, Transport())


def test_misspelt_option() -> None:
    """A name that is nearly right is guessed."""
    with pytest.raises(TypeError) as caught:
        options_of({"prioritty": 1}, Wire())
    assert (
        str(caught.value) == "options['prioritty']: unknown; did you mean 'priority'?"
    )


def test_options_are_no_mapping() -> None:
    """A lone name is no options."""
    with pytest.raises(TypeError, match=r"^options: 'retain' is not a mapping\.$"):
        options_of("retain", Wire())
