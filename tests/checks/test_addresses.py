"""Checks of the addresses on which servers listen."""

from typing import Any

import pytest

from django_microservices.transports import Transport

from .running import found, ids, one


def listening(*options: dict[str, Any]) -> dict[str, Any]:
    """Give servers with these options."""
    return {f"s{n}": {"OPTIONS": each} for n, each in enumerate(options)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"port": 3000}),
        ({"host": "10.0.0.7"}, {"url": "tcp://10.0.0.7:3000"}),
        ({"host": "0.0.0.0"}, {"host": "127.0.0.1"}),
        ({"host": "10.0.0.7"}, {"host": "::"}),
    ],
)
def test_address_taken_twice(first: dict[str, Any], second: dict[str, Any]) -> None:
    """In one process the second would not start."""
    message = one(found(SERVERS=listening(first, second)), "W009")
    assert "'s0' and 's1' listen on the same address" in message.msg


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"port": 3001}),
        ({"host": "127.0.0.1"}, {"host": "127.0.0.2"}),
        ({"port": 0}, {"port": 0}),
    ],
)
def test_addresses_of_their_own(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Another port or another host is free, and 0 is whatever is free."""
    assert ids(found(SERVERS=listening(first, second))) == []


def test_address_in_words() -> None:
    """An address of IPv6 stands in brackets."""
    both = {"host": "::1", "port": 4000}
    assert "[::1]:4000." in one(found(SERVERS=listening(both, both)), "W009").msg


class Listening(Transport):
    """A wire whose address is no port."""

    listens = True


def test_address_without_a_port() -> None:
    """What has no port is not compared."""
    servers = {"a": {"TRANSPORT": Listening}, "b": {"TRANSPORT": Listening}}
    assert ids(found(SERVERS=servers)) == []
