"""What all transports share."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices import create_client, transports
from django_microservices.transports import TCPTransport

from .peers import Service


def test_transports_are_named() -> None:
    """A wire's file is imported when it is named; what is no wire is an error."""
    assert transports.TCPTransport is TCPTransport
    with pytest.raises(AttributeError, match="no attribute 'CarrierPigeon'"):
        getattr(transports, "CarrierPigeon")  # noqa: B009 - mypy knows better


def test_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""

    def find_none(*_: str) -> None:
        raise ModuleNotFoundError(name="redis")

    monkeypatch.setattr(transports, "import_module", find_none)
    says = r"RedisTransport needs redis: pip install '.*\[redis\]'"
    with pytest.raises(ImproperlyConfigured, match=says):
        create_client("django_microservices.transports.RedisTransport")


async def test_a_transport_is_two_methods() -> None:
    """The base class serves and calls nobody."""
    bare = transports.Transport()
    with pytest.raises(NotImplementedError):
        bare.serve([], Service(), print, limit=1)
    with pytest.raises(NotImplementedError):
        bare.connect(print, print)
