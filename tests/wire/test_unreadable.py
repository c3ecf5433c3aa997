"""What is answered to a message that could not be read."""

from typing import Any

import pytest

from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET
from django_microservices.wire.unreadable import TOO_LARGE_ERROR, unreadable


@pytest.mark.parametrize("id_", ["7", 7, 1.5, None, "x" * 4096])
def test_who_asks_is_told(id_: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What may be wrong travels; which of it was stands in our log."""
    reply = unreadable(id_, "it is a joke")
    assert reply is not None
    assert (reply.id, reply.data) == (id_, None)
    assert decode(reply.error or b"") == {
        "status": "error",
        "message": "The message could not be read: it nests too deeply, or is no JSON "
        "of this wire.",
    }
    assert caplog.messages == ["Refused a request: it is a joke."]


def test_another_error() -> None:
    """Where the caller can be told more."""
    reply = unreadable("7", "it is large", TOO_LARGE_ERROR)
    assert reply is not None
    assert reply.error == TOO_LARGE_ERROR


@pytest.mark.parametrize("id_", [UNSET, [], {"a": 1}, "x" * 4097])
def test_an_id_that_is_not_sent_back(
    id_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs nobody anything: neither an answer nor a line."""
    assert unreadable(id_) is None
    assert not caplog.messages
