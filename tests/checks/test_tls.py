"""Checks of certificates and keys."""

import ssl
from typing import Any

import pytest

from django_microservices.transports import TCPTransport, Transport

from .running import found, ids, one


def with_tls(**options: Any) -> dict[str, Any]:
    """Give an entry with these ``tls_options``."""
    return {"OPTIONS": {"tls_options": options}}


def test_usable_certificate(certificate: dict[str, str]) -> None:
    """A certificate with its key is right on either end."""
    entry = with_tls(**certificate)
    assert ids(found(SERVERS={"a": entry}, CLIENTS={"b": entry, "c": {}})) == []


@pytest.mark.parametrize(
    "options",
    [{"cert": "/nowhere.pem", "key": "/nowhere.key"}, {"ca": "/nowhere.pem"}],
)
def test_unusable_certificate(options: Any) -> None:
    """A file that is not there is told before anybody needs it."""
    entry = with_tls(**options)
    messages = found(CLIENTS={"b": entry})
    assert ids(messages) == ids(found(SERVERS={"a": entry})) == ["E008"]
    path = "MICROSERVICES['CLIENTS']['b']['OPTIONS']: tls_options"
    assert one(messages, "E008").msg.startswith(path)


@pytest.mark.parametrize(
    ("transport", "option", "more"),
    [
        ("MQTTTransport", "tls_options", {"url": "mqtts://broker"}),
        ("RabbitMQTransport", "tls_options", {"urls": ["amqps://broker"]}),
        ("NATSTransport", "tls", {}),
        ("JetStreamTransport", "tls", {}),
        ("RedisTransport", "tls", {}),
        ("RedisStreamsTransport", "tls", {}),
    ],
)
def test_unusable_file_of_a_broker(transport: str, option: str, more: Any) -> None:
    """Each wire's error begins with the option as one wrote it."""
    options = {option: {"ca": "/nowhere.pem", "reject_unauthorized": False}, **more}
    dotted = f"django_microservices.transports.{transport}"
    entry = {"TRANSPORT": dotted, "OPTIONS": options}
    messages = found(deploy=True, CLIENTS={"b": entry})
    path = f"MICROSERVICES['CLIENTS']['b']['OPTIONS']: {option}['ca'] (/nowhere.pem)"
    assert one(messages, "E008").msg.startswith(path)
    assert f"in {option}['ca']" in (one(messages, "W006").hint or "")


def test_certificate_of_one_end(certificate: dict[str, str]) -> None:
    """A server needs a certificate of its own, and a client does not."""
    entry = with_tls(ca=certificate["cert"])
    messages = found(SERVERS={"a": entry}, CLIENTS={"b": entry})
    path = "MICROSERVICES['SERVERS']['a']['OPTIONS']"
    text = f"{path}: tls_options: a server needs 'cert' and 'key'."
    assert one(messages, "E008").msg == text


def test_server_without_a_certificate() -> None:
    """TLS that says nothing cannot be served, though a client needs no more."""
    messages = found(SERVERS={"a": with_tls()}, CLIENTS={"b": with_tls()})
    text = "MICROSERVICES['SERVERS']['a']['OPTIONS']: tls_options: a server needs"
    assert one(messages, "E008").msg.startswith(text)


def test_key_without_a_certificate(certificate: dict[str, str]) -> None:
    """A key alone would be ignored."""
    messages = found(CLIENTS={"b": with_tls(key=certificate["key"])})
    assert "tls_options['key'] needs 'cert'" in one(messages, "E008").msg


class Foreign(Transport):
    """A wire with a TLS option of its own kind."""

    def __init__(self, *, tls_options: ssl.SSLContext | None = None) -> None:
        self.tls_options = tls_options


def test_option_of_another_kind() -> None:
    """Only what a transport says to be ours is read as ours."""
    options = {"tls_options": ssl.create_default_context()}
    entry = {"TRANSPORT": Foreign, "OPTIONS": options}
    assert ids(found(CLIENTS={"b": entry}, SERVERS={"a": entry})) == []


class OurOption(Foreign):
    """One that says so, and takes a context as well."""

    tls_option = "tls_options"


def test_context_in_the_place_of_options() -> None:
    """There are no files in it to look at."""
    options = {"tls_options": ssl.create_default_context()}
    entry = {"TRANSPORT": OurOption, "OPTIONS": options}
    assert ids(found(CLIENTS={"b": entry})) == []


def test_certificate_of_a_broker_client() -> None:
    """A server that listens nowhere itself connects as a client does."""

    class Broker(TCPTransport):
        listens = False

    entry = {"TRANSPORT": Broker, **with_tls()}
    assert ids(found(SERVERS={"a": entry})) == []
