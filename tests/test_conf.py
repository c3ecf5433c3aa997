"""``MICROSERVICES`` of settings, read."""

import datetime
import gc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_microservices import Client, RemoteError, conf
from django_microservices.conf import (
    clients,
    create_client,
    create_microservice,
    handlers_of,
    server_config,
    servers,
    service_name,
    setting,
)
from django_microservices.endpoints.client import ClientConfig
from django_microservices.transports import MemoryTransport, TCPTransport

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


def loaded(name: str) -> Any:
    """Read an entry of CLIENTS as the client of that name does."""
    return clients[name]._load()


# --- single settings --------------------------------------------------------------


def config_of(client: Client) -> ClientConfig:
    """Return what settings say of a client."""
    client._once.get()
    assert client._config is not None
    return client._config


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


def test_handlers_are_discovered_once() -> None:
    """Servers with the same HANDLERS share them."""
    first, second = (handlers_of(name, [APP], "X") for name in ("a", "b"))
    assert first == second
    assert set(first) <= set(conf.discovered())


@pytest.mark.parametrize("name", ["nowhere", f"{APP}.nowhere"])
def test_unknown_handlers(name: str) -> None:
    """What is neither an app nor a module is refused."""
    text = refusal(handlers_of, "default", [name], "X")
    assert text == f"X['HANDLERS']: {name!r} is neither an installed app nor a module."


def test_handlers_that_import_what_is_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is there and cannot be imported shows its own error."""
    (tmp_path / "broken_handlers.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        handlers_of("default", ["broken_handlers"], "X")


def test_handlers_as_text() -> None:
    """A lone name is no list."""
    text = refusal(handlers_of, "default", APP, "X")
    assert text == f"X['HANDLERS']: {APP!r} is not a list."


def test_handlers_of_named_servers(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler with servers= is served by those only."""
    (tmp_path / "bound_handlers.py").write_text(
        "from django_microservices import message_pattern\n"
        "@message_pattern('a', servers='one')\n"
        "def a(data: int) -> int: return data\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(handlers_of("one", ["bound_handlers"], "X")) == 1
    assert handlers_of("two", ["bound_handlers"], "X") == []


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
        assert conf.discovered() == []
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
