"""What the tests of handlers share."""

from collections.abc import AsyncIterator

import pytest

from .composing import Composed


@pytest.fixture
async def composed() -> AsyncIterator[Composed]:
    """Run handlers on threads of their own."""
    composed = Composed()
    yield composed
    composed.stop()
