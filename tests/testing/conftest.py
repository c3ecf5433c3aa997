"""A client of settings, for tests that mock it."""

from typing import Any

import pytest

from django_microservices import Client, clients


@pytest.fixture
def stock(settings: Any) -> Client:
    """Return a client behind which there is nobody."""
    settings.MICROSERVICES = {
        "CLIENTS": {"STOCK": {"OPTIONS": {"port": 1}}, "OTHER": {"TIMEOUT": None}}
    }
    return clients["STOCK"]
