"""Checks of what matters in production only."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_microservices.transports import MemoryTransport, Transport

from .running import IMPORTS, SYNC, deployed, found, one, served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "math.example"])
def test_open_server(host: str) -> None:
    """A server that others reach without TLS is told."""
    assert deployed(SERVERS=served(OPTIONS={"host": host})) == ["W004"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_closed_server(host: str) -> None:
    """A server on loopback is not."""
    assert deployed(SERVERS=served(OPTIONS={"host": host})) == []


def test_open_server_with_tls(certificate: dict[str, str]) -> None:
    """Nor is one with TLS, nor one on a wire that does not listen."""
    options = {"host": "0.0.0.0", "tls_options": certificate}
    assert deployed(SERVERS=served(OPTIONS=options)) == []
    assert deployed(SERVERS=served(TRANSPORT=MemoryTransport)) == []


BROKERS = [
    ("RedisTransport", {"url": "redis://HOST"}, {"url": "rediss://HOST"}),
    ("RedisTransport", {"host": "HOST"}, {"host": "HOST", "tls": {}}),
    (
        "RedisTransport",
        {"sentinels": ["HOST"], "name": "m"},
        {"sentinels": ["HOST"], "name": "m", "tls": {}},
    ),
    ("NATSTransport", {"url": "nats://HOST"}, {"url": "tls://HOST"}),
    ("JetStreamTransport", {"servers": ["HOST"]}, {"servers": ["HOST"], "tls": {}}),
    ("RabbitMQTransport", {"url": "amqp://HOST"}, {"url": "amqps://HOST"}),
    ("MQTTTransport", {"url": "mqtt://HOST"}, {"url": "mqtts://HOST"}),
]


def told_of_broker(transport: str, options: Any, host: str) -> list[str]:
    """Return what is told of an entry, which stands on either end."""
    text = json.dumps(options).replace("HOST", host)
    entry = {
        "TRANSPORT": f"django_microservices.transports.{transport}",
        "OPTIONS": json.loads(text),
    }
    servers = {"a": {"HANDLERS": [], **entry}}
    messages = found(deploy=True, SERVERS=servers, CLIENTS={"b": entry})
    return [m.msg for m in messages if m.id == "microservices.W008"]


@pytest.mark.parametrize(("transport", "plain", "_"), BROKERS)
def test_plain_broker(transport: str, plain: Any, _: Any) -> None:
    """A broker elsewhere without TLS is told, for either end."""
    one, other = told_of_broker(transport, plain, "broker.example")
    assert "['a']: it talks to 'broker.example' without TLS" in one
    assert "['b']: it talks to 'broker.example' without TLS" in other


@pytest.mark.parametrize(("transport", "plain", "secure"), BROKERS)
def test_broker_nearby_or_with_tls(transport: str, plain: Any, secure: Any) -> None:
    """On this host nobody is on the way, and TLS keeps them out."""
    assert told_of_broker(transport, plain, "127.0.0.1") == []
    assert told_of_broker(transport, secure, "broker.example") == []


def test_broker_behind_a_socket() -> None:
    """A Unix socket is on this host."""
    assert told_of_broker("RedisTransport", {"url": "unix:///run/redis"}, "") == []


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install an app with handlers outside of the project."""
    folder = tmp_path / "third_party_app"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "handlers.py").write_text(IMPORTS + SYNC)
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(INSTALLED_APPS=["third_party_app"]):
        yield
    for name in ("third_party_app", "third_party_app.handlers"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("third_party")
def test_third_party_handlers() -> None:
    """Handlers of others that are served unasked are told."""
    message = one(found(deploy=True, SERVERS={"default": {}}), "W005")
    assert "'default' serves the handlers of 'third_party_app'" in message.msg


@pytest.mark.usefixtures("third_party")
def test_third_party_handlers_on_purpose() -> None:
    """Those that are named are meant."""
    assert deployed(SERVERS=served("third_party_app")) == []


@pytest.mark.usefixtures("third_party")
def test_third_party_without_a_base(tmp_path: Path) -> None:
    """Without BASE_DIR only what pip installed is of others."""
    with override_settings():
        from django.conf import settings

        del settings.BASE_DIR
        assert deployed(SERVERS={"default": {}}) == []


def test_third_party_in_site_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip installed below BASE_DIR is of others, too."""
    folder = tmp_path / "site-packages" / "installed_app"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "handlers.py").write_text(IMPORTS + SYNC)
    monkeypatch.syspath_prepend(folder.parent)
    with override_settings(INSTALLED_APPS=["installed_app"], BASE_DIR=tmp_path):
        assert deployed(SERVERS={"default": {}}) == ["W005"]


def test_handlers_of_the_project() -> None:
    """The project's own apps are served by default."""
    assert deployed(SERVERS={"default": {}}) == []


def test_unverified() -> None:
    """TLS without verification is told for either end."""
    entry = {"OPTIONS": {"tls_options": {"cert": "a", "reject_unauthorized": False}}}
    messages = found(
        deploy=True, SERVERS={"a": {"HANDLERS": [], **entry}}, CLIENTS={"b": entry}
    )
    told = [m.msg.partition(":")[0] for m in messages if m.id == "microservices.W006"]
    assert told == ["MICROSERVICES['SERVERS']['a']", "MICROSERVICES['CLIENTS']['b']"]


class Broadcast(Transport):
    """A wire on which everybody gets everything."""


class Shared(Broadcast):
    """One that gives each message to one replica."""

    shares_work = True


@pytest.mark.parametrize(
    ("transport", "expected"), [(Broadcast(), ["W007"]), (Shared(), [])]
)
def test_unshared(transport: Transport, expected: list[str]) -> None:
    """A wire that cannot share work is told where there may be replicas."""
    servers = {"default": {"TRANSPORT": transport, "HANDLERS": []}}
    assert deployed(SERVERS=servers) == expected
