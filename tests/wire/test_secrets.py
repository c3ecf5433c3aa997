"""What is secret in options is hidden."""

from typing import Any

import pytest

from django_microservices.wire.secrets import is_secret, masked, without_secrets

PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        ("a", "'a'"),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
        ({"port": 1, "password": "s3cret"}, "{'port': 1, 'password': ********}"),
        ({"tls": {"passphrase": b"s3cret"}}, "{'tls': {'passphrase': ********}}"),
        ({"key": None}, "{'key': None}"),
        ({"auth": True}, "{'auth': True}"),
        ({"ApiToken": ("a", "b")}, "{'ApiToken': ********}"),
        ("amqp://me:s3@cret@host/%2f", "'amqp://********@host/%2f'"),
        ("nats://token@host", "'nats://********@host'"),
        ("redis://:s3cret@host", "'redis://********@host'"),
        (["a://u:p@h", "b://h"], "['a://********@h', 'b://h']"),
        ("pg://h/db?password=s3cret&x=1", "'pg://h/db?password=********&x=1'"),
        (PEM, "'********\\n'"),
    ],
)
def test_masked(value: Any, text: str) -> None:
    """The repr of a value, without the secrets in it."""
    assert masked(value) == text


def test_masked_by_name() -> None:
    """The name of an option alone may tell that its value is secret."""
    assert masked("s3cret", "password") == "********"
    assert masked("s3cret", "host") == "'s3cret'"


@pytest.mark.parametrize("name", ["password", "PASSPHRASE", "key", "sasl_secret"])
def test_secret_names(name: str) -> None:
    """What these name is secret, unless nothing or a switch is given."""
    assert is_secret("x", name)
    assert not is_secret(None, name)
    assert not is_secret(False, name)


OPTIONS = {
    "password": "s3cret",
    "tls_options": {"passphrase": "0therS3cret", "ca": "/ca.pem"},
    "nodes": [{"token": "t0ken"}, {"token": ""}],
}


def test_text_of_somebody_else() -> None:
    """What a constructor says is told without the secrets that it was given."""
    text = "No login with s3cret, 0therS3cret or t0ken; see /ca.pem"
    told = "No login with ********, ******** or ********; see /ca.pem"
    assert without_secrets(text, OPTIONS) == told


def test_address_of_somebody_else() -> None:
    """An address in a text loses its user, known or not."""
    assert without_secrets("no tcp://a:b@h", None) == "no tcp://********@h"
