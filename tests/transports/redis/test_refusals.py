"""What Redis refuses for now, and what for good."""

import pytest

from django_microservices.exceptions import NotConnected, TransportRefused
from django_microservices.transports.redis.protocol import ReplyError
from django_microservices.transports.redis.refusals import refusal


@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "MISCONF Redis is configured to save RDB snapshots",
        "ERR max number of clients reached",
    ],
)
def test_for_now(text: str) -> None:
    """It may work later, so that it is tried again."""
    error = refusal("redis://here", ReplyError(text))
    assert (type(error), str(error)) == (
        NotConnected,
        f"redis://here refuses: {text}",
    )


@pytest.mark.parametrize(
    "text",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions",
        "NOAUTH Authentication required.",
        "ERR unknown command 'XAUTOCLAIM'",
    ],
)
def test_for_good(text: str) -> None:
    """It never will."""
    assert isinstance(refusal("here", ReplyError(text)), TransportRefused)
