"""What settings say, constructed: each wrong entry is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.checks import run_checks
from django.test import override_settings

from django_microservices import checks
from django_microservices.transports import Transport

from .running import Write, found, ids, one, served

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


class Failing(Transport):
    """Somebody's transport, with a defect."""

    def __init__(self, *, limit: int = 1) -> None:
        raise KeyError(limit)


def test_transport_with_a_defect() -> None:
    """Whatever a constructor raises is an error of settings, and named."""
    messages = found(CLIENTS={"a": {"TRANSPORT": Failing}})
    path = "MICROSERVICES['CLIENTS']['a']['OPTIONS']"
    assert one(messages, "E001").msg == f"{path}: KeyError: 1"


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


def test_every_id_is_documented() -> None:
    """The list at the top names every id that the code uses."""
    folder = Path(checks.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    used = {part[:4] for part in text.split("{TAG}.")[1:]} | {"E001", "E002"}
    listed = {line[:4] for line in (checks.__doc__ or "").splitlines()}
    assert {id_ for id_ in used if id_[1:].isdigit()} <= listed
