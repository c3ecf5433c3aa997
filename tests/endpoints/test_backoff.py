"""How long an end waits before it tries again."""

import random

import pytest

from django_microservices.endpoints.backoff import (
    BASE,
    CLIENT_CAP,
    SERVER_CAP,
    STEADY,
    Backoff,
)


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the jitter always be the most it may be."""
    monkeypatch.setattr(random, "uniform", lambda least, most: most)


@pytest.mark.usefixtures("longest")
def test_doubles_up_to_the_cap() -> None:
    """The longest wait doubles from the base and stops at the cap."""
    backoff = Backoff(0.4)
    assert [backoff.next() for _ in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4]


@pytest.mark.usefixtures("longest")
def test_what_held_was_good() -> None:
    """After a connection that held for a while the waits begin short again."""
    backoff = Backoff(5.0)
    backoff.next()
    backoff.held(STEADY)
    assert backoff.next() == 2 * BASE
    backoff.held(STEADY + 0.1)
    assert backoff.next() == BASE


@pytest.mark.usefixtures("longest")
def test_goes_on_for_ever() -> None:
    """A thousand failures later it still waits for the cap."""
    backoff = Backoff(CLIENT_CAP)
    assert {backoff.next() for _ in range(1000)} <= {0.05 * 2**n for n in range(7)} | {
        5
    }
    assert backoff.next() == CLIENT_CAP
    assert backoff.tries == 1001


def test_jitter_is_full() -> None:
    """Waits are spread over everything from nothing to the most."""
    backoff = Backoff(SERVER_CAP)
    backoff.tries = 10
    waits = [backoff.next() for _ in range(500)]
    assert min(waits) < 0.1 * SERVER_CAP
    assert max(waits) > 0.9 * SERVER_CAP
