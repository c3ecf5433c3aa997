"""A client of settings, for tests that mock it."""

from collections.abc import Iterator
from typing import Any

import pytest

from django_microservices import Client, clients
from django_microservices.testing import MockClient, mock_client


@pytest.fixture
def stock(settings: Any) -> Client:
    """Return a client behind which there is nobody."""
    settings.MICROSERVICES = {
        "CLIENTS": {"STOCK": {"OPTIONS": {"port": 1}}, "OTHER": {"TIMEOUT": None}}
    }
    return clients["STOCK"]


@pytest.fixture
def mock(stock: Client) -> Iterator[MockClient]:
    """Mock the client."""
    with mock_client("STOCK") as mock:
        yield mock
