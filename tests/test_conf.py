"""``MICROSERVICES`` of settings, read."""

import datetime
from typing import Any

import pytest
from django.test import override_settings

from django_microservices import conf
from django_microservices.conf import (
    clients,
    handlers_of,
    names_in,
    server_config,
    servers,
    service_name,
    setting,
)
from django_microservices.transports import MemoryTransport, TCPTransport

from .given import APP, config_of, given, refusal


def loaded(name: str) -> Any:
    """Read an entry of CLIENTS as the client of that name does."""
    return clients[name]._load()


# --- single settings --------------------------------------------------------------


def test_defaults() -> None:
    """Without the setting everything has a default."""
    assert setting("SYNC_THREADS") == 8
    assert list(servers) == ["default"]
    assert list(clients) == []


def test_given() -> None:
    """What is given counts."""
    with given(SYNC_THREADS=3):
        assert setting("SYNC_THREADS") == 3


def test_unknown_setting() -> None:
    """A misspelt key is named, with the one that was meant."""
    with given(SERVER={}):
        text = "MICROSERVICES['SERVER']: unknown; did you mean 'SERVERS'?"
        assert refusal(setting, "NAME") == text


def test_service_name() -> None:
    """The service is called as its project, or as settings say."""
    assert service_name() == "tests"
    with given(NAME="orders"):
        assert service_name() == "orders"


class Grouped(MemoryTransport):
    """A transport with consumer groups."""

    def __init__(self, *, group: str | None = None) -> None:
        super().__init__()
        self.group = group


def test_consumer_group() -> None:
    """Both ends of a transport belong to the group that the service is."""
    entry = {"TRANSPORT": Grouped}
    with given(NAME="orders"):
        client = conf.client_config(entry, "here").transport
        server = server_config("a", {**entry, "HANDLERS": [APP]}, "here").transport
    assert isinstance(client, Grouped)
    assert isinstance(server, Grouped)
    assert client.group == server.group == "orders"


@pytest.mark.parametrize("kind", ["SERVERS", "CLIENTS"])
def test_entries_are_no_dict(kind: str) -> None:
    """A list of servers or clients is refused."""
    with given(**{kind: ["default"]}):
        text = refusal(conf.names_in, kind)
    assert text == f"MICROSERVICES[{kind!r}]: ['default'] is not a dict."


# --- clients ----------------------------------------------------------------------


def test_client() -> None:
    """An entry of CLIENTS has Nest's transport and a timeout by default."""
    with given(CLIENTS={"MATH": {"OPTIONS": {"host": "math", "port": 4000}}}):
        config = loaded("MATH")
    assert isinstance(config.transport, TCPTransport)
    assert (config.transport.host, config.transport.port) == ("math", 4000)
    assert (config.timeout, config.middleware) == (5.0, ())


def test_client_is_one() -> None:
    """A name gives the same object each time."""
    assert clients["MATH"] is clients["MATH"]


def test_unknown_client() -> None:
    """A client that settings do not have is refused at its first use."""
    with given(CLIENTS={"MATH_SERVICE": {}}):
        text = refusal(clients["MATHS_SERVICE"].send, "a")
    path = "MICROSERVICES['CLIENTS']['MATHS_SERVICE']"
    assert text == f"{path}: unknown; did you mean 'MATH_SERVICE'?"


def test_unknown_key_of_a_client() -> None:
    """A misspelt key of an entry is named."""
    with given(CLIENTS={"MATH": {"TIMOUT": 5}}):
        text = refusal(loaded, "MATH")
    path = "MICROSERVICES['CLIENTS']['MATH']['TIMOUT']"
    assert text == f"{path}: unknown; did you mean 'TIMEOUT'?"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(2, 2.0), (datetime.timedelta(minutes=1), 60.0), (None, None)],
)
def test_timeout(timeout: Any, seconds: float | None) -> None:
    """A timeout is in seconds, or a timedelta, or for ever."""
    with given(CLIENTS={"MATH": {"TIMEOUT": timeout}}):
        assert loaded("MATH").timeout == seconds


def test_wrong_timeout() -> None:
    """Any other timeout is refused."""
    with given(CLIENTS={"MATH": {"TIMEOUT": "5"}}):
        text = refusal(loaded, "MATH")
    assert text.startswith("MICROSERVICES['CLIENTS']['MATH']['TIMEOUT']: '5' is not")


def middleware(get_response: Any) -> Any:
    """Do nothing."""
    return get_response


def test_middleware_of_a_client() -> None:
    """Middleware is a dotted path or a callable."""
    parts = [f"{__name__}.middleware", middleware]
    with given(CLIENTS={"MATH": {"MIDDLEWARE": parts}}):
        assert loaded("MATH").middleware == (middleware, middleware)


@pytest.mark.parametrize("parts", ["a.b", ["a.b"], [7]])
def test_wrong_middleware(parts: Any) -> None:
    """Anything else is refused."""
    with given(CLIENTS={"MATH": {"MIDDLEWARE": parts}}):
        text = refusal(loaded, "MATH")
    assert text.startswith("MICROSERVICES['CLIENTS']['MATH']['MIDDLEWARE']: ")


def test_entry_by_a_callable() -> None:
    """An entry may be a callable."""
    with given(CLIENTS={"MATH": lambda: {"OPTIONS": {"port": 4000}}}):
        assert loaded("MATH").transport.port == 4000


async def test_entry_by_an_async_callable() -> None:
    """An entry may be an async callable."""

    async def entry() -> dict[str, Any]:
        return {"OPTIONS": {"port": 4000}}

    with given(CLIENTS={"MATH": entry}):
        assert (await loaded("MATH")).transport.port == 4000


def test_override_settings() -> None:
    """A client follows changed settings at once."""
    client = clients["MATH"]
    for port in (4000, 5000):
        with given(CLIENTS={"MATH": {"OPTIONS": {"port": port}}}):
            transport: Any = config_of(client).transport
            assert transport.port == port


# --- servers ----------------------------------------------------------------------


def test_server() -> None:
    """An entry of SERVERS has its transport, its handlers and its limits."""
    config = server_config("default", {"HANDLERS": [APP]}, "X")
    assert isinstance(config.transport, TCPTransport)
    assert config.concurrency == 100
    assert {handler.module for handler in config.handlers} == {f"{APP}.handlers"}


def test_middleware_of_a_server() -> None:
    """The project's middleware stands outside of the server's own."""

    def own(get_response: Any) -> Any:
        return get_response

    with given(MIDDLEWARE=[middleware]):
        config = server_config("default", {"MIDDLEWARE": [own]}, "X")
    assert config.middleware == (middleware, own)


@pytest.mark.parametrize("concurrency", [0, "5", True])
def test_wrong_concurrency(concurrency: Any) -> None:
    """The most messages in flight is a whole number."""
    entry = {"CONCURRENCY": concurrency}
    text = refusal(server_config, "default", entry, "X")
    assert text.startswith("X['CONCURRENCY']: ")


def test_messages_are_logged_under_debug() -> None:
    """Each message is a log line under DEBUG."""
    assert not server_config("default", {}, "X").log_messages
    with override_settings(DEBUG=True):
        assert server_config("default", {}, "X").log_messages


# --- handlers ---------------------------------------------------------------------


def test_handlers_of_installed_apps() -> None:
    """Without HANDLERS those of every installed app are served."""
    names = {handler.name for handler in handlers_of("default", None, "X")}
    assert f"{APP}.handlers.echo" in names
    assert f"{APP}.handlers.Greetings.greet" in names


def test_handlers_of_a_module() -> None:
    """HANDLERS names apps and modules."""
    by_app = handlers_of("default", [APP], "X")
    by_module = handlers_of("default", [f"{APP}.handlers"], "X")
    assert [h.name for h in by_app] == [h.name for h in by_module]


def test_handlers_as_text() -> None:
    """A lone name is no list."""
    text = refusal(handlers_of, "default", APP, "X")
    assert text == f"X['HANDLERS']: {APP!r} is not a list."


@pytest.mark.parametrize("name", [5, None, "", ".", ".x", "x.", "a..b"])
def test_handlers_that_are_no_names(name: Any) -> None:
    """HANDLERS lists dotted names, and nothing else."""
    text = refusal(handlers_of, "default", [APP, name], "X")
    assert text == f"X['HANDLERS']: {name!r} is no dotted name of an app or module."


@pytest.mark.parametrize("kind", ["SERVERS", "CLIENTS"])
def test_names_are_texts(kind: str) -> None:
    """Anything else could not be named by a handler, a command or an error."""
    with given(**{kind: {"a": {}, 5: {}}}):
        assert refusal(names_in, kind) == f"MICROSERVICES[{kind!r}]: 5 is no name."
