"""The reference tells every option of NATS and JetStream, as the code has it."""

from typing import Any, get_type_hints

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.options import build_transport, parameters_of
from django_microservices.transports.jetstream import (
    JetStreamTransport,
    JetStreamWire,
)
from django_microservices.transports.nats import NATSTransport, NATSWire
from django_microservices.transports.nats.servers import NATSTLSOptions
from tests.docs import reference

PAGE = "transports/nats"


def parameters(wire: type[NATSTransport]) -> dict[str, Any]:
    """Return the options of a transport and their defaults."""
    return {each.name: repr(each.default) for each in parameters_of(wire)}


def own_of_jetstream() -> dict[str, Any]:
    """Return those that JetStream has alone."""
    shared = parameters(NATSTransport)
    found = parameters(JetStreamTransport)
    return {name: value for name, value in found.items() if name not in shared}


def test_jetstream_has_all_options_of_nats() -> None:
    """With the same defaults and types: they are the same."""
    shared = parameters(NATSTransport)
    found = parameters(JetStreamTransport)
    assert {name: found.get(name) for name in shared} == shared
    wrong = {"servers": 7}
    with pytest.raises(ImproperlyConfigured, match=r"'servers'\]: expected str or"):
        build_transport(JetStreamTransport, wrong, "X", "client", lambda: "shop")


def test_options_and_their_defaults() -> None:
    """Each has a row with its default."""
    assert reference.defaults_of(PAGE, "Options") == parameters(NATSTransport)
    assert reference.defaults_of(PAGE, "JetStream") == own_of_jetstream()


@pytest.mark.parametrize(
    ("heading", "wire"), [("Options", NATSTransport), ("JetStream", JetStreamTransport)]
)
def test_end_of_an_option(heading: str, wire: type[NATSTransport]) -> None:
    """The reference says which end takes it."""
    for row in reference.rows_of(PAGE, heading):
        for name in reference.names_in(row[0]):
            is_server, is_client = name in wire.server_only, name in wire.client_only
            end = "server" if is_server else "client" if is_client else "both"
            assert row[2] == end, name


def test_what_context_wire_has() -> None:
    """Each member of the wire's values is told."""
    text = reference.text_of(PAGE)
    for kind in (NATSWire, JetStreamWire):
        members = [*kind.__struct_fields__, "headers"]
        assert [name for name in members if f"`{name}`" not in text] == []


def test_tls_is_that_of_tcp() -> None:
    """And one key more."""
    assert "handshake_first" in get_type_hints(NATSTLSOptions)
    assert "handshake_first" in reference.text_of(PAGE)


def test_group_is_the_services_name() -> None:
    """Settings fill it in, on both ends."""
    for end in ("server", "client"):
        built = build_transport(NATSTransport, {}, "X", end, lambda: "my orders")
        assert isinstance(built, NATSTransport)
        assert built.servers.name == "my orders"
        assert built.queue == "my_orders"


@pytest.mark.parametrize(
    ("end", "options"),
    [
        ("client", {"queue": "x"}),
        ("server", {"headers": {"a": "b"}}),
        ("client", {"headers": {"a b": "c"}}),
        ("server", {"queue": "a b"}),
        ("server", {"inbox_prefix": "a.*"}),
        ("server", {"servers": ["ws://nats"]}),
        ("server", {"serverz": []}),
    ],
)
def test_wrong_option(end: str, options: dict[str, Any]) -> None:
    """The error begins with the setting's path."""
    with pytest.raises(ImproperlyConfigured, match=r"^X\['OPTIONS'\]"):
        build_transport(NATSTransport, options, "X", end, lambda: "orders")
