"""What the tests of handlers share."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from django_microservices.wire.context import MessageContext, current
from django_microservices.wire.messages import Message
from django_microservices.wire.patterns import Pattern

from .composing import Composed


@pytest.fixture
async def composed() -> AsyncIterator[Composed]:
    """Run handlers on threads of their own."""
    composed = Composed()
    yield composed
    composed.stop()


@pytest.fixture
def message() -> MessageContext[Any]:
    """A message."""
    return MessageContext(Message(Pattern.of("p"), b"1"))


@pytest.fixture
def handled(message: MessageContext[Any]) -> Iterator[MessageContext[Any]]:
    """A message that is being handled here."""
    token = current.set(message)
    yield message
    current.reset(token)
