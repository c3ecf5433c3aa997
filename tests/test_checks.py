"""System checks: each message, and when there is none."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import trustme
from django.core.checks import CheckMessage, run_checks
from django.db import connections
from django.test import override_settings

from django_microservices import checks
from django_microservices.transports import MemoryTransport, TCPTransport, Transport
from django_microservices.wire.patterns import AMQP, Grammar

IMPORTS = """
from typing import Any
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django_microservices import Controller, event_pattern, message_pattern
"""


class WildTransport(MemoryTransport):
    """A wire with wildcards."""

    grammar: ClassVar[Grammar] = AMQP


Write = Callable[[str], str]

numbers = itertools.count()


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes a module of handlers and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write(text: str) -> str:
        name = f"checked_handlers_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(IMPORTS + text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def found(*, deploy: bool = False, **entries: Any) -> list[CheckMessage]:
    """Run the checks with these settings."""
    with override_settings(MICROSERVICES=entries):
        every = run_checks(tags=[checks.TAG], include_deployment_checks=deploy)
    return [message for message in every if message.id]


def ids(messages: list[CheckMessage]) -> list[str]:
    """Return the ids of messages, but W002: other tests mark functions, too."""
    every = [(message.id or "").partition(".")[2] for message in messages]
    return [id_ for id_ in every if id_ != "W002"]


def served(*modules: str, **entry: Any) -> dict[str, Any]:
    """Serve these modules."""
    return {"default": {"HANDLERS": list(modules), **entry}}


def one(messages: list[CheckMessage], id_: str) -> CheckMessage:
    """Return the only message with this id."""
    (message,) = (m for m in messages if m.id == f"microservices.{id_}")
    return message


# --- settings ---------------------------------------------------------------------


def test_defaults_are_fine() -> None:
    """A project that adds one line to INSTALLED_APPS hears nothing."""
    assert ids(run_checks(tags=["microservices"])) == []


def test_wrong_option() -> None:
    """A misspelt option is an error with the path and what was meant."""
    messages = found(SERVERS={"default": {"OPTIONS": {"prot": 1}}})
    path = "MICROSERVICES['SERVERS']['default']['OPTIONS']['prot']"
    assert one(messages, "E001").msg == f"{path}: unknown; did you mean 'port'?"


def test_every_entry_is_constructed() -> None:
    """Each wrong entry is told, not only the first."""
    wrong = {"OPTIONS": {"port": "3000"}}
    messages = found(
        SERVERS={"a": wrong, "b": wrong, "c": {}},
        CLIENTS={"d": wrong, "e": {}},
        SYNC_THREADS=0,
    )
    assert ids(messages) == ["E001"] * 4


def test_wrong_shape() -> None:
    """A setting that is no dict is told once."""
    messages = found(SERVERS=["default"])
    assert ids(messages) == ["E001"]
    with override_settings(MICROSERVICES=[]):
        assert ids(run_checks(tags=["microservices"])) == ["E001"]


def test_secrets_are_hidden() -> None:
    """No check tells a password."""
    url = "tcp://me:s3cret@host"
    messages = found(CLIENTS={"a": {"OPTIONS": {"url": url, "port": url}}})
    assert "s3cret" not in str(messages)
    assert ids(messages) == ["E001"]


def test_callable_entry() -> None:
    """An entry that is a callable is called."""
    messages = found(CLIENTS={"a": lambda: {"OPTIONS": {"prot": 1}}})
    assert ids(messages) == ["E001"]


def test_async_entry() -> None:
    """An entry that is an async callable is skipped, which is told."""

    async def entry() -> dict[str, Any]:
        raise NotImplementedError

    messages = found(SERVERS={"a": entry}, CLIENTS={"b": entry})
    assert ids(messages) == ["I001", "I001"]
    assert messages[0].msg.startswith("MICROSERVICES['SERVERS']['a']: an async")


def test_awaitable_entry() -> None:
    """An awaitable that is no coroutine is skipped as well."""

    class Later:
        def __await__(self) -> Iterator[Any]:
            raise NotImplementedError

    assert ids(found(CLIENTS={"b": Later})) == ["I001"]


def test_callable_entry_that_raises() -> None:
    """An entry that fails is named with its error, and its secrets are hidden."""

    def entry() -> dict[str, Any]:
        message = "no vault at https://me:s3cret@vault"
        raise LookupError(message)

    messages = found(SERVERS={"a": entry}, CLIENTS={"b": entry, "c": {"OPTION": {}}})
    assert ids(messages) == ["E001"] * 3
    assert messages[0].msg == (
        "MICROSERVICES['SERVERS']['a']: the callable raised LookupError: "
        "no vault at https://********@vault"
    )


# --- TLS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> dict[str, str]:
    """Give what a server presents."""
    leaf = trustme.CA().issue_cert("localhost")
    return {
        "cert": leaf.cert_chain_pems[0].bytes().decode(),
        "key": leaf.private_key_pem.bytes().decode(),
    }


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


def test_certificate_of_one_end(certificate: dict[str, str]) -> None:
    """A server needs a certificate of its own, and a client does not."""
    entry = with_tls(ca=certificate["cert"])
    messages = found(SERVERS={"a": entry}, CLIENTS={"b": entry})
    path = "MICROSERVICES['SERVERS']['a']['OPTIONS']"
    text = f"{path}: tls_options: a server needs 'cert' and 'key'."
    assert one(messages, "E008").msg == text


def test_certificate_of_a_broker_client() -> None:
    """A server that listens nowhere itself connects as a client does."""

    class Broker(TCPTransport):
        listens = False

    entry = {"TRANSPORT": Broker, **with_tls()}
    assert ids(found(SERVERS={"a": entry})) == []


# --- handlers ---------------------------------------------------------------------


def test_every_unusable_handler(handlers: Write) -> None:
    """One run tells all that is wrong, in every module and Controller."""
    first = handlers(
        "@message_pattern('a', atomic=True)\nasync def a(data): ...\n"
        "@message_pattern('b', timout=1)\ndef b(data): ...\n"
        "class C(Controller):\n"
        "    @message_pattern('c', timout=1)\n    def c(self, data): ...\n"
        "    @message_pattern('d', timout=1)\n    def d(self, data): ...\n"
    )
    second = handlers("@message_pattern('e', timout=1)\ndef e(data): ...\n")
    messages = found(SERVERS=served(first, second))
    assert ids(messages) == ["E002"] * 5
    names = [message.msg.partition(":")[0] for message in messages]
    assert names == [f"{first}.{n}" for n in ("a", "b", "C.c", "C.d")] + [f"{second}.e"]


def test_unusable_handler(handlers: Write) -> None:
    """What discovery refuses is an error, told once for all servers."""
    name = handlers("@message_pattern('a', atomic=True)\nasync def a(data): ...")
    servers = {**served(name), "other": {"HANDLERS": [name]}}
    message = one(found(SERVERS=servers), "E002")
    assert message.msg.startswith(f"{name}.a: atomic=True needs a sync handler")


def test_duplicates(handlers: Write) -> None:
    """Two handlers for one request are told with both names."""
    name = handlers(
        "@message_pattern({'a': 1, 'b': 2})\ndef one(data): ...\n"
        "@message_pattern('x', {'b': 2, 'a': 1})\ndef two(data): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E003")
    both = f"{name}.one and {name}.two"
    pattern = '{"a":1,"b":2}'
    text = f"Server 'default': the request {pattern!r} is answered by both {both}."
    assert message.msg == text


def test_duplicates_on_two_servers(handlers: Write) -> None:
    """Handlers for one request may be parted by ``servers=``."""
    name = handlers(
        "@message_pattern('a', servers='default')\ndef one(data): ...\n"
        "@message_pattern('a', servers='other')\ndef two(data): ...\n"
    )
    assert ids(found(SERVERS={**served(name), "other": {"HANDLERS": [name]}})) == []


def test_several_handlers_of_an_event(handlers: Write) -> None:
    """Any number of handlers may listen to one event."""
    name = handlers(
        "@event_pattern('a')\ndef one(data): ...\n"
        "@event_pattern('a')\ndef two(data): ...\n"
    )
    assert ids(found(SERVERS=served(name))) == []


def test_duplicates_by_inheritance(handlers: Write) -> None:
    """Two Controllers that inherit a handler are told apart."""
    name = handlers(
        "class Base(Controller):\n"
        "    @message_pattern('a')\n"
        "    def a(self, data): ...\n"
        "class Other(Base): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E003")
    assert message.msg.endswith(f"{name}.Base.a and {name}.Base.a ({name}.Other).")


def test_unknown_server(handlers: Write) -> None:
    """A handler that is bound to a server that is not, is told."""
    name = handlers("@message_pattern('a', servers='defualt')\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E004")
    text = f"{name}.a: servers='defualt': unknown; did you mean 'default'?"
    assert message.msg == text


def test_reserved_pattern(handlers: Write) -> None:
    """A pattern of our own extension cannot be a handler's."""
    name = handlers("@message_pattern('dm-cancel')\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E005")
    assert message.msg.startswith(f"{name}.a: 'dm-cancel' begins with 'dm-'")


@pytest.mark.parametrize("annotation", ["User", "QuerySet[User]"])
def test_unencodable_answer(handlers: Write, annotation: str) -> None:
    """A handler that says that it returns a model is told what to do."""
    name = handlers(f"@message_pattern('a')\ndef a(data: int) -> {annotation}: ...")
    message = one(found(SERVERS=served(name)), "E006")
    assert message.msg.startswith(f"{name}.a: ")


@pytest.mark.parametrize("pattern", ["1.0", '{"b":1,"a":2}', "true", '"x"'])
def test_unreachable_pattern(handlers: Write, pattern: str) -> None:
    """A text that is JSON and not in its canonical form is never looked up."""
    name = handlers(f"@message_pattern({pattern!r})\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E007")
    assert message.msg.startswith(f"{name}.a: The pattern {pattern!r} is read as")


def test_reachable_patterns(handlers: Write) -> None:
    """Objects, numbers and plain texts are reachable."""
    name = handlers("@message_pattern('a', '007', 1.5, {'b': 1})\ndef a(data): ...")
    assert ids(found(SERVERS=served(name))) == []


def test_overlap(handlers: Write) -> None:
    """Two wildcards that match the same names are told."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('*.created')\ndef two(data): ...\n"
    )
    message = one(found(SERVERS=served(name, TRANSPORT=WildTransport)), "W001")
    text = "Server 'default': the requests '*.created' and 'order.*' overlap."
    assert message.msg == text


def test_no_overlap(handlers: Write) -> None:
    """Wildcards that match different names are fine, and so are exact patterns."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('user.*')\ndef two(data): ...\n"
        "@message_pattern('user.created')\ndef three(data): ...\n"
    )
    assert ids(found(SERVERS=served(name, TRANSPORT=WildTransport))) == []


def test_text_is_no_wildcard(handlers: Write) -> None:
    """On a wire without wildcards a star is a star."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('*.created')\ndef two(data): ...\n"
    )
    assert ids(found(SERVERS=served(name))) == []


@pytest.fixture
def stray(handlers: Write) -> ModuleType:
    """Import a module with a handler that no server names."""
    name = handlers("@message_pattern('a')\ndef stray(data): ...")
    __import__(name)
    return sys.modules[name]


def test_stray(stray: ModuleType) -> None:
    """A marked function that no server finds is told."""
    messages = found()
    (text,) = (m.msg for m in messages if stray.__name__ in m.msg)
    assert text.startswith(f"{stray.__name__}.stray is marked as a handler")


def test_stray_that_is_served(stray: ModuleType) -> None:
    """A module that a server names may be called as it likes."""
    assert stray.__name__ not in str(found(SERVERS=served(stray.__name__)))


def test_stray_in_handlers() -> None:
    """A ``handlers.py`` that no server names was left out on purpose."""
    assert "tests.handlers_app" not in str(found(SERVERS=served()))


def test_strays_while_discovery_fails(stray: ModuleType) -> None:
    """While settings are wrong, nobody knows who is stray."""
    assert stray.__name__ not in str(found(SYNC_THREADS=0))


# --- the database -----------------------------------------------------------------

SYNC = "@message_pattern('a')\ndef a(data): ..."
ASYNC = "@message_pattern('a')\nasync def a(data): ..."
ASYNC_ORM = "@message_pattern('a', uses_database=True)\nasync def a(data): ..."


@pytest.mark.parametrize("text", [SYNC, ASYNC_ORM])
def test_connection_per_message(handlers: Write, text: str) -> None:
    """Both ages at 0 mean a connection for each message."""
    name = handlers(text)
    message = one(found(SERVERS=served(name), DATABASE_MAX_AGE=0), "W003")
    assert "CONN_MAX_AGE of 'default'" in message.msg


def test_no_connection_per_message(
    handlers: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means nothing without sync handlers, or where Django keeps connections."""
    assert ids(found(SERVERS=served(handlers(ASYNC)), DATABASE_MAX_AGE=0)) == []
    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 60)
    assert ids(found(SERVERS=served(handlers(SYNC)), DATABASE_MAX_AGE=0)) == []


def test_kept_connections(handlers: Write) -> None:
    """For production it is told how many connections are kept."""
    name = handlers(SYNC)
    messages = found(deploy=True, SERVERS=served(name), SYNC_THREADS=3)
    message = one(messages, "I002")
    assert "for 60 s" in message.msg
    assert "up to 7 connections" in (message.hint or "")


def test_database_while_settings_are_wrong(handlers: Write) -> None:
    """A wrong age is one error."""
    name = handlers(SYNC)
    assert ids(found(SERVERS=served(name), DATABASE_MAX_AGE="a")) == ["E001"]


# --- deployment -------------------------------------------------------------------


def deployed(**entries: Any) -> list[str]:
    """Return the ids of the warnings under ``--deploy``."""
    return [id_ for id_ in ids(found(deploy=True, **entries)) if id_ != "I002"]


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


def test_every_id_is_documented() -> None:
    """The list at the top names every id that the code uses."""
    folder = Path(checks.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    used = {part[:4] for part in text.split("{TAG}.")[1:]} | {"E001", "E002"}
    listed = {line[:4] for line in (checks.__doc__ or "").splitlines()}
    assert {id_ for id_ in used if id_[1:].isdigit()} <= listed
