"""``manage.py microservice handlers | send | emit``."""

import gc
import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

MEMORY = "django_microservices.transports.MemoryTransport"
APP = "tests.handlers_app"
SETTINGS: dict[str, Any] = {
    "SERVERS": {
        "default": {"TRANSPORT": MEMORY, "HANDLERS": [APP]},
        "none": {"TRANSPORT": MEMORY, "OPTIONS": {"name": "none"}, "HANDLERS": []},
    },
    "CLIENTS": {"SELF": {"TRANSPORT": MEMORY}},
}

pytestmark = pytest.mark.usefixtures("_settings")


@pytest.fixture
def _settings() -> Iterator[None]:
    """Serve and call the app in one process."""
    with override_settings(MICROSERVICES=SETTINGS):
        yield
    gc.collect()  # a handler's error holds the thread on which it was raised


def run(*args: str) -> str:
    """Run the command and return what it wrote."""
    out = StringIO()
    call_command("microservice", *args, stdout=out)
    return out.getvalue()


def refusal(*args: str) -> str:
    """Return the one line that a failing command writes."""
    with pytest.raises(CommandError) as caught:
        run(*args)
    assert caught.value.returncode == 1
    return str(caught.value)


# --- handlers ---------------------------------------------------------------------


def row(name: str) -> list[str]:
    """Return the cells of a handler's row."""
    (line,) = (line for line in run("handlers").splitlines() if f".{name} " in line)
    return line.split(None, 4)


def test_handlers() -> None:
    """A table names each handler with its pattern, its kind and how it runs."""
    title = run("handlers").splitlines()[0]
    assert title.split() == ["PATTERN", "KIND", "HANDLER", "SERVERS", "RUNS"]
    name = f"{APP}.handlers.total"
    assert row("total") == ['{"cmd":"sum"}', "request", name, "default", "sync"]


@pytest.mark.parametrize(
    ("name", "kind", "runs"),
    [
        ("note", "event", "sync"),
        ("echo", "request", "async"),
        ("count", "request", "sync stream"),
        ("acount", "request", "async stream"),
        ("Greetings.greet", "request", "sync"),
    ],
)
def test_how_handlers_run(name: str, kind: str, runs: str) -> None:
    """Events, streams and async handlers are told apart."""
    cells = row(name)
    assert (cells[1], cells[4]) == (kind, runs)


def test_handlers_of_several_servers() -> None:
    """A handler that several servers offer has one row."""
    servers = {"a": {"HANDLERS": [APP]}, "b": {"HANDLERS": [APP]}}
    with override_settings(MICROSERVICES={"SERVERS": servers}):
        assert run("handlers").count(" a, b ") == len(run("handlers").splitlines()) - 1


def test_handlers_of_one_server() -> None:
    """A server without handlers has a table without rows."""
    assert len(run("handlers", "--server", "none").splitlines()) == 1
    assert f"{APP}.handlers.echo" in run("handlers", "--server", "default")


def test_handlers_of_an_unknown_server() -> None:
    """A server that settings do not have is refused."""
    path = "MICROSERVICES['SERVERS']['defualt']"
    text = f"{path}: unknown; did you mean 'default'?"
    assert refusal("handlers", "--server", "defualt") == text


def test_handlers_of_an_async_entry() -> None:
    """An entry that is an async callable is awaited."""

    async def entry() -> dict[str, Any]:
        return {"HANDLERS": [APP]}

    with override_settings(MICROSERVICES={"SERVERS": {"later": entry}}):
        assert " later " in run("handlers")


# --- send -------------------------------------------------------------------------


def test_send() -> None:
    """The answer is printed as JSON."""
    assert run("send", "SELF", '{"cmd": "sum"}', "[1, 2, 3]") == "6\n"


def test_send_text() -> None:
    """What is no JSON is text."""
    assert run("send", "SELF", "echo", "it's ✓") == '"it\'s ✓"\n'


def test_send_without_data() -> None:
    """Without data null is sent."""
    assert run("send", "SELF", "echo") == "null\n"


def test_send_headers() -> None:
    """Headers travel beside the payload."""
    given = run("send", "SELF", "headers", "--header", "a=1", "--header", "b=x=y")
    assert json.loads(given).items() >= {"a": "1", "b": "x=y"}.items()


def test_stream() -> None:
    """With ``--stream`` every item is a line."""
    for pattern in ("count", "acount"):
        assert run("send", "SELF", pattern, "3", "--stream") == "0\n1\n2\n"


def test_timeout() -> None:
    """``--timeout`` bounds the wait."""
    text = refusal("send", "SELF", "hold", "--timeout", "0.05")
    assert text.startswith("MessageTimeout: ") or "ran out of time" in text


def test_remote_error() -> None:
    """An error of the other side is printed as it came, and no traceback."""
    text = 'RemoteError: {"status": "error", "message": "sold out"}'
    assert refusal("send", "SELF", "refuse", "sold out") == text


def test_no_handler() -> None:
    """A pattern that nobody handles is told."""
    assert refusal("send", "SELF", "nothing").startswith("NoHandler: SELF: nothing: ")


def test_unknown_client() -> None:
    """A client that settings do not have is refused."""
    path = "MICROSERVICES['CLIENTS']['SELFF']"
    text = f"{path}: unknown; did you mean 'SELF'?"
    assert refusal("send", "SELFF", "echo") == text


@pytest.mark.parametrize("header", ["a", "=1"])
def test_wrong_header(header: str) -> None:
    """A header needs a name and a value."""
    text = f"--header {header!r}: write it as KEY=VALUE."
    assert refusal("send", "SELF", "echo", "--header", header) == text


def test_reserved_pattern() -> None:
    """A pattern of our own extension is refused."""
    assert "reserved" in refusal("send", "SELF", "dm-cancel")


def test_not_connected(free_port: Any) -> None:
    """A service that is not there is told."""
    client = {"OPTIONS": {"port": free_port()}, "TIMEOUT": 3}
    with override_settings(MICROSERVICES={"CLIENTS": {"AWAY": client}}):
        assert refusal("send", "AWAY", "echo").startswith("NotConnected: AWAY: ")


def test_answer_without_a_value() -> None:
    """JavaScript's undefined is an empty line."""
    assert run("send", "SELF", "undefined") == "\n"


# --- emit -------------------------------------------------------------------------


def test_emit() -> None:
    """An event is sent, and nothing printed."""
    assert run("emit", "SELF", "noted", '{"a": 1}', "--header", "a=1") == ""


def test_verb_is_needed() -> None:
    """Without a verb the usage is told."""
    with pytest.raises(CommandError, match="VERB"):
        run()
