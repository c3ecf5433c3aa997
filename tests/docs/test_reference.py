"""The reference names everything that is public, with its default."""

import importlib
import inspect
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands, load_command_class
from django.dispatch import Signal

import django_microservices
from django_microservices import checks, conf, exceptions, signals
from django_microservices.dispatch.decorators import Mark
from django_microservices.dispatch.marks import Options
from django_microservices.endpoints import config
from django_microservices.log import MessageFilter
from django_microservices.transports import (
    JetStreamTransport,
    MemoryTransport,
    MQTTTransport,
    NATSTransport,
    RabbitMQTransport,
    RedisStreamsTransport,
    RedisTransport,
    TCPTransport,
    Transport,
)
from django_microservices.transports.tcp import TLSOptions
from django_microservices.wire.messages import Message, Reply, Subscription

from . import reference
from .blocks import DOCS

PACKAGE = Path(django_microservices.__file__).parent


# --- names ------------------------------------------------------------------------


def test_every_public_name_is_listed() -> None:
    """The first table of names is ``__all__``, in its order."""
    listed = reference.first_names("names")
    public = django_microservices.__all__
    assert listed[: len(public)] == public


def paths() -> list[str]:
    """Return the dotted paths that the reference calls public."""
    found = reference.first_names("names")[len(django_microservices.__all__) :]
    return [name for name in found if name.startswith("django_microservices.")]


@pytest.mark.parametrize("path", paths())
def test_every_public_path_can_be_imported(path: str) -> None:
    """A dotted path that the reference names is there."""
    module, _, name = path.rpartition(".")
    if name[0].isupper():
        assert hasattr(importlib.import_module(module), name)
    else:
        importlib.import_module(path)


def test_exceptions_are_documented() -> None:
    """Each exception is public, and so documented with the module that defines it."""
    own = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert own <= set(django_microservices.__all__)
    assert all(name in (exceptions.__doc__ or "") for name in own)
    assert "automodule:: django_microservices.exceptions" in reference.text_of(
        "exceptions"
    )


def test_signals_are_listed() -> None:
    """Each signal has a row."""
    own = [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    assert reference.first_names("signals") == own


def test_log_attributes_are_told() -> None:
    """What the filter puts on a record is what the guide and the docstring say."""
    guide = (DOCS / "howto/logging.md").read_text()
    named = re.findall(r"^:`(\w+)`:", guide, re.MULTILINE)
    assert set(named) == {"request_id", "message_id", "pattern", "server", "handler"}
    assert all(name in (MessageFilter.__doc__ or "") for name in named)


# --- settings ---------------------------------------------------------------------


def test_settings_and_their_defaults() -> None:
    """Each key of ``MICROSERVICES`` has a row with its default."""
    told = reference.defaults_of("settings", "MICROSERVICES")
    assert told == {
        name: repr(value).replace("'", '"') for name, value in conf.DEFAULTS.items()
    }


def test_keys_of_a_server() -> None:
    """Each key of an entry of ``SERVERS`` has a row."""
    told = reference.defaults_of("settings", "An entry of SERVERS")
    assert set(told) == set(conf._SERVER_KEYS)
    default = config.ServerConfig._field_defaults["concurrency"]
    assert told["CONCURRENCY"] == repr(default)


def test_keys_of_a_client() -> None:
    """Each key of an entry of ``CLIENTS`` has a row."""
    told = reference.defaults_of("settings", "An entry of CLIENTS")
    assert set(told) == set(conf._CLIENT_KEYS)
    assert told["TIMEOUT"] == repr(config.DEFAULT_TIMEOUT)


# --- transports -------------------------------------------------------------------


def shown(value: Any) -> str:
    """Return a default as the reference writes it."""
    return value.__name__ if inspect.isclass(value) else repr(value)


def defaults(cls: type[Transport]) -> dict[str, str]:
    """Return the options of a transport and their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: shown(parameter.default) for parameter in parameters}


def test_tcp_options_and_their_defaults() -> None:
    """Each option of TCP has a row with its default, in the order of the signature."""
    told = reference.defaults_of("tcp", "Options")
    assert {name: told.get(name) for name in defaults(TCPTransport)} == defaults(
        TCPTransport
    )


def test_tcp_options_and_their_end() -> None:
    """The reference says which end takes an option."""
    rows = reference.rows_of("tcp", "Options")
    told = {reference.names_in(row[0])[0]: row[2] for row in rows if "`" in row[0]}
    for name in defaults(TCPTransport):
        is_server = name in TCPTransport.server_only
        is_client = name in TCPTransport.client_only
        assert told[name] == (
            "server" if is_server else "client" if is_client else "both"
        )


def test_tls_options() -> None:
    """Each key of ``tls_options`` has a row."""
    assert reference.first_names("tcp", "tls_options") == list(
        get_type_hints(TLSOptions)
    )


def test_memory_options() -> None:
    """So has the memory transport's."""
    assert reference.defaults_of("transports", "Memory") == defaults(MemoryTransport)


def test_capabilities() -> None:
    """Each flag of a transport has a row that says which wires have it."""
    wires: list[Transport] = [
        TCPTransport(),
        RedisTransport(),
        RedisStreamsTransport(group="shop"),
        NATSTransport(group="shop"),
        JetStreamTransport(group="shop"),
        RabbitMQTransport(group="shop"),
        MQTTTransport(group="shop"),
        MemoryTransport(),
    ]
    flags = [name for name, value in vars(Transport).items() if value is False]
    rows = [row for row in reference.rows_of("transports", "The contract") if row[1:]]
    told = {reference.names_in(row[0])[0]: row[1:-1] for row in rows if "`" in row[0]}
    words = {True: "yes", False: "no"}
    assert told == {
        flag: [words[getattr(wire, flag)] for wire in wires] for flag in flags
    }


def test_fields_of_what_travels() -> None:
    """Each field of a message, a reply and a subscription has a row."""
    fields = [
        name
        for struct in (Message, Reply, Subscription)
        for name in struct.__struct_fields__
    ]
    assert reference.first_names("transports", "What they carry") == fields


# --- handlers, commands and checks ------------------------------------------------


def test_options_of_decorators() -> None:
    """Each option of the decorators has a row."""
    told = reference.first_names("decorators", "message_pattern, event_pattern")
    with pytest.raises(ImproperlyConfigured, match="no option") as refusal:
        Options.of(Mark("request", ("x",), {"??": 1}), "handler")
    listed = str(refusal.value).rpartition("; there is ")[2].rstrip(".")
    assert sorted(told) == listed.split(", ")


def test_verbs_of_clients() -> None:
    """Each public name of a client is told."""
    text = reference.text_of("clients")
    internal = {"reset", "forget", "run", "arun"}
    names = dir(django_microservices.Client)
    public = {name for name in names if not name.startswith("_")}
    assert [name for name in sorted(public - internal) if f"`{name}" not in text] == []


def test_checks() -> None:
    """Each id that a check may give has a row."""
    sources = [path.read_text() for path in (PACKAGE / "checks").glob("*.py")]
    given = set(re.findall(r"\b[EWI]0\d\d\b", "".join(sources)))
    told = reference.first_names("checks")
    ids = [name for name in told if name.startswith(f"{checks.TAG}.")]
    assert ids == [
        f"{checks.TAG}.{id_}"
        for id_ in sorted(given, key=lambda i: ("EWI".index(i[0]), i))
    ]


def options_of(parser: ArgumentParser) -> set[str]:
    """Return the long options of a command and of its verbs."""
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        for verb in getattr(action, "choices", None) or {}:
            if isinstance(action.choices, dict):
                found |= options_of(action.choices[verb])
    return {option for option in found if option.startswith("--")}


OWN_COMMANDS = sorted(
    name for name, app in get_commands().items() if app == "django_microservices"
)


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_commands_and_their_options(name: str) -> None:
    """Each command is told with every option that Django's own commands do not have."""
    command = load_command_class("django_microservices", name)
    own = options_of(command.create_parser("manage.py", name))
    django_own = options_of(
        load_command_class("django.core", "check").create_parser("manage.py", "check")
    )
    wanted = own - (django_own - {"--skip-checks"})
    text = reference.text_of("commands")
    assert f"## {name}" in text
    missing = [option for option in sorted(wanted) if f"`{option}`" not in text]
    assert [option for option in missing if option != "--skip-checks"] == []


# --- Nest -------------------------------------------------------------------------

NAMES_OF_NEST = """
host port retryAttempts retryDelay tlsOptions socketClass maxBufferSize
incompleteMessageTimeout maxSendBufferSize serializer deserializer
MessagePattern EventPattern Payload Ctx Client Inject Controller Injectable Catch
UseGuards UsePipes UseInterceptors UseFilters GrpcMethod GrpcStreamMethod GrpcStreamCall
getSocketRef getPattern getMetadata getArgs getArgByIndex getData getContext
TcpContext RedisContext NatsContext MqttContext RmqContext KafkaContext
RequestContextHost RmqRecordBuilder NatsRecordBuilder MqttRecordBuilder
RpcException BaseRpcExceptionFilter KafkaRetriableException GrpcException
InvalidMessageException EmptyResponseException
createMicroservice connectMicroservice startAllMicroservices getMicroservices
getTransportServer inheritAppConfig deferInitialization registerAsync useFactory
isGlobal ClientProxyFactory customClass strategy registerPreRequestHook
setOnDispatchHook setOnProcessingStartHook setOnProcessingEndHook
onModuleInit onApplicationBootstrap onModuleDestroy beforeApplicationShutdown
onApplicationShutdown enableShutdownHooks createTestingModule overrideProvider
send emit connect close status on unwrap
subscribeToResponseOf emitBatch commitOffsets getService getClientByServiceName
"""


@pytest.mark.parametrize("name", NAMES_OF_NEST.split())
def test_nest_name_has_its_twin(name: str) -> None:
    """What a Nest user looks for is on the page for them."""
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", (DOCS / "nest.md").read_text())
