"""The page of the Redis wires names every option, its default and its end."""

from typing import get_type_hints

import pytest

from django_microservices.options import parameters_of
from django_microservices.transports import Transport
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisStreamsWire,
    RedisTransport,
)
from tests.docs import reference

PAGE = "transports/redis"
OF_STREAMS = "Streams"


def options_of(cls: type[Transport]) -> dict[str, str]:
    """Return the options of a transport and their defaults."""
    return {each.name: repr(each.default) for each in parameters_of(cls)}


def told(heading: str) -> dict[str, str]:
    """Return what the page tells of the options under a heading."""
    found = reference.defaults_of(PAGE, heading)
    return {name: default for name, default in found.items() if default}


def test_options_and_their_defaults() -> None:
    """Those of both wires stand in one table, those of streams in another."""
    both, streams = told("Options"), told(OF_STREAMS)
    assert both == options_of(RedisTransport)
    for name in ("wildcards", "max_stream_age"):
        del both[name]
    expected = options_of(RedisStreamsTransport)
    assert {name: (both | streams).get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("cls", "heading"),
    [(RedisTransport, "Options"), (RedisStreamsTransport, OF_STREAMS)],
)
def test_options_and_their_end(cls: type[Transport], heading: str) -> None:
    """The page says which end takes an option."""
    for row in reference.rows_of(PAGE, heading):
        names = reference.names_in(row[0])
        if names and names[0] in options_of(cls):
            is_server, is_client = (
                names[0] in cls.server_only,
                names[0] in cls.client_only,
            )
            end = "server" if is_server else "client" if is_client else "both"
            assert (names[0], row[2]) == (names[0], end)


def test_what_a_handler_can_know() -> None:
    """Each field of the wire's own value has a row."""
    names = reference.first_names(PAGE, OF_STREAMS)
    assert set(get_type_hints(RedisStreamsWire)) <= set(names)
