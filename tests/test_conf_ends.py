"""Clients, servers and a Microservice, made by name or outside of settings."""

import gc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from django_microservices import Client, RemoteError, conf
from django_microservices.conf import (
    clients,
    create_client,
    create_microservice,
    handlers_of,
    servers,
)
from django_microservices.transports import MemoryTransport, TCPTransport

from .given import APP, MEMORY, SERVER, config_of, given, refusal

# --- outside of settings ----------------------------------------------------------


def test_create_client() -> None:
    """A client outside settings has its options by keyword."""
    config = config_of(create_client(port=4000))
    assert isinstance(config.transport, TCPTransport)
    assert config.transport.port == 4000


def test_create_client_by_dict() -> None:
    """Or it is written as an entry of CLIENTS is."""
    entry = {"TRANSPORT": MEMORY, "OPTIONS": {"name": "a"}, "TIMEOUT": 3}
    config = config_of(create_client(entry))
    assert isinstance(config.transport, MemoryTransport)
    assert config.timeout == 3.0


def test_create_client_both_ways() -> None:
    """An entry has its options inside."""
    text = refusal(lambda: create_client({}, port=3000))
    assert text.startswith("create_client()['port']: unknown")


def test_create_client_wrongly() -> None:
    """A wrong option is refused at once."""
    text = refusal(lambda: create_client(prot=3000))
    path = "create_client()['OPTIONS']['prot']"
    assert text == f"{path}: unknown; did you mean 'port'?"


def test_create_microservice() -> None:
    """A Microservice has every server of settings, and the limits of a process."""
    with given(SERVERS={"a": {}, "b": {}}, SYNC_THREADS=2, DRAIN_TIMEOUT=0):
        microservice = create_microservice()
    assert [server.name for server in microservice.servers] == ["a", "b"]
    assert (microservice.sync_threads, microservice.stream_threads) == (2, 4)
    assert (microservice.drain_timeout, microservice.database_max_age) == (0.0, 60.0)


def test_create_microservice_of_some() -> None:
    """Or it has those that are named."""
    with given(SERVERS={"a": {}, "b": {}}):
        (server,) = create_microservice(["b"]).servers
        assert server is servers["b"]


def test_create_microservice_of_nothing() -> None:
    """Without servers there is nothing to serve."""
    with override_settings(MICROSERVICES={"SERVERS": {}}):
        text = refusal(create_microservice)
    assert text.startswith("MICROSERVICES['SERVERS']: it is empty")


def test_create_microservice_of_an_unknown() -> None:
    """A server that settings do not have is refused."""
    with given(SERVERS={"default": {}}):
        text = refusal(create_microservice, ["defualt"])
    path = "MICROSERVICES['SERVERS']['defualt']"
    assert text == f"{path}: unknown; did you mean 'default'?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYNC_THREADS", 0),
        ("STREAM_THREADS", "4"),
        ("DATABASE_MAX_AGE", -1),
        ("DRAIN_TIMEOUT", "soon"),
    ],
)
def test_wrong_limit(name: str, value: Any) -> None:
    """A limit of the process is a number."""
    with given(**{name: value}):
        assert refusal(create_microservice).startswith(f"MICROSERVICES[{name!r}]: ")


def test_microservice_closes_used_clients() -> None:
    """A Microservice knows the clients that were used by the time it stops."""
    with given(CLIENTS={"MATH": {}}):
        microservice = create_microservice()
        client = clients["MATH"]
        assert client in list(microservice.clients)


# --- the memory transport ---------------------------------------------------------


@pytest.fixture
def _memory() -> Iterator[None]:
    """Serve and call the app in one process."""

    async def by_callable() -> dict[str, Any]:
        return SERVER

    with given(
        SERVERS={"tcp": {}, "default": by_callable},
        CLIENTS={"SELF": {"TRANSPORT": MEMORY}},
    ):
        yield
    gc.collect()  # a handler's error holds the thread on which it was raised


@pytest.mark.usefixtures("_memory")
def test_in_process() -> None:
    """A client on the memory transport is served by the server of the same name."""
    assert clients["SELF"].send({"cmd": "sum"}, [1, 2, 3]) == 6


@pytest.mark.usefixtures("_memory")
def test_error_in_process() -> None:
    """Errors travel as they do between processes."""
    with pytest.raises(RemoteError, match="sold out"):
        clients["SELF"].send("refuse", "sold out")


@pytest.mark.usefixtures("_memory")
async def test_in_process_within_a_microservice() -> None:
    """A server that runs on the loop already is not started twice."""
    with given(SERVERS={"default": SERVER}, CLIENTS={"SELF": {"TRANSPORT": MEMORY}}):
        microservice = create_microservice()
        await microservice.start()
        assert await clients["SELF"].asend("echo", "a") == "a"
        await microservice.stop()


@pytest.mark.usefixtures("_memory")
def test_in_process_from_a_throwaway_loop() -> None:
    """Async code under ``async_to_sync`` is served as well."""
    asend: Callable[..., Any] = async_to_sync(clients["SELF"].asend)
    assert asend("echo", "a") == "a"


def test_settings_forgotten() -> None:
    """Discovery and servers begin anew with changed settings."""
    before = servers["default"]
    handlers_of("default", [APP], "X")
    with given():
        assert conf.discovery.all() == []
        assert servers["default"] is not before


def test_other_settings() -> None:
    """Other settings change nothing."""
    before = servers["default"]
    with override_settings(TIME_ZONE="Europe/Berlin"):
        assert servers["default"] is before


def test_module_level_client() -> None:
    """``clients[...]`` may stand at module level: it reads no settings."""
    module = ModuleType("views")
    exec("from django_microservices import clients\nc = clients['LATER']", vars(module))
    assert isinstance(vars(module)["c"], Client)
