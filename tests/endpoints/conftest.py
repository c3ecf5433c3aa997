"""What the tests of the ends leave behind is ended."""

from collections.abc import Iterator

import pytest

from django_microservices.concurrency.portal import portal


@pytest.fixture(scope="module", autouse=True)
def _portal_ends() -> Iterator[None]:
    """Stop the portal that sync callers used, so that no thread of it is left."""
    yield
    portal.stop()
