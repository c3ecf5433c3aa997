"""MICROSERVICES in settings, as a test gives them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_microservices import Client
from django_microservices.endpoints.config import ClientConfig

MEMORY = "django_microservices.transports.MemoryTransport"
APP = "tests.handlers_app"
SERVER = {"TRANSPORT": MEMORY, "HANDLERS": [APP]}


def given(**entries: Any) -> override_settings:
    """Put a dict into settings."""
    return override_settings(MICROSERVICES=entries)


def refusal(function: Callable[..., Any], *args: Any) -> str:
    """Return the message of the error."""
    with pytest.raises(ImproperlyConfigured) as caught:
        function(*args)
    return str(caught.value)


def config_of(client: Client) -> ClientConfig:
    """Return what settings say of a client."""
    client._once.get()
    assert client._config is not None
    return client._config
