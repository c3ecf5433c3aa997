"""``manage.py runmicroservice``, mostly in a process of its own."""

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_microservices import Client, create_client

from .process import Command, Peer, closed, manage, peer_of

Run = Callable[..., AbstractAsyncContextManager[Command]]


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    """Return a port for the server."""
    return free_port()


@pytest.fixture
def run(port: int, tmp_path: Path) -> Run:
    """Return what runs the command on that port."""

    def start(*args: str, **settings: Any) -> AbstractAsyncContextManager[Command]:
        microservices = {"SERVERS": {"default": {"OPTIONS": {"port": port}}}}
        settings = {"MICROSERVICES": microservices, **settings}
        database = tmp_path / "db.sqlite3"
        return manage(
            "runmicroservice", *args, database=database, path=tmp_path, **settings
        )

    return start


@asynccontextmanager
async def client_on(port: int) -> AsyncIterator[Client]:
    """Call the server."""
    client = create_client({"OPTIONS": {"port": port}, "TIMEOUT": 20})
    yield client
    await client.aclose()


@asynccontextmanager
async def holding(command: Command, port: int) -> AsyncIterator[Peer]:
    """Have the command run a handler that holds; give who waits for it."""
    await command.line("Ready")
    async with peer_of(port) as peer:
        peer.send("hold")
        await command.line("holding")
        yield peer


# --- starting ---------------------------------------------------------------------


async def test_start(run: Run, port: int) -> None:
    """It says what runs, each server with its address, and at last that it is ready."""
    async with run() as command:
        assert await command.line("Ready") == "Ready. Quit with CONTROL-C."
        title, server = command.lines[-3:-1]
    assert title.startswith(("Django 5.2", "Django 6"))
    assert "settings 'tests.management.settings', service 'tests'" in title
    assert "8 sync threads" in title
    assert server.split()[:2] == ["default", f"tcp://127.0.0.1:{port}"]
    assert "patterns from handlers_app (" in server


async def test_ready_means_ready(run: Run, port: int) -> None:
    """Once it says so, messages are answered."""
    async with run() as command, client_on(port) as client:
        await command.line("Ready")
        assert await client.asend({"cmd": "sum"}, [1, 2]) == 3


async def test_checks_and_migrations(run: Run) -> None:
    """Checks are run, and pending migrations reported, as runserver does."""
    async with run() as command:
        await command.line("Ready")
    assert "Performing system checks..." in command.text
    assert "System check identified no issues" in command.text
    assert "unapplied migration(s)" in command.text


async def test_failing_check(run: Run) -> None:
    """A wrong setting ends it with 1, and the path of the setting."""
    wrong = {"SERVERS": {"default": {"OPTIONS": {"prot": 1}}}}
    async with run(MICROSERVICES=wrong) as command:
        assert await command.ended() == 1
    assert "did you mean 'port'?" in command.text
    assert "Traceback" not in command.text


async def test_wrong_setting_without_checks(run: Run) -> None:
    """Without checks the same setting is refused when it is read."""
    wrong = {"SERVERS": {"default": {"OPTIONS": {"prot": 1}}}}
    async with run("--skip-checks", MICROSERVICES=wrong) as command:
        assert await command.ended() == 1
    assert "Performing system checks" not in command.text
    assert command.lines[-1].startswith("CommandError: MICROSERVICES['SERVERS']")


async def test_port_taken(run: Run, port: int) -> None:
    """A port that is taken ends it with 3, and a line that says so."""
    with socket.create_server(("127.0.0.1", port)):
        async with run() as command:
            assert await command.ended() == 3
    assert f"Cannot start: Cannot listen on 127.0.0.1:{port}: " in command.lines[-1]


def test_unknown_server() -> None:
    """A server that settings do not have is refused, with the one that was meant."""
    with pytest.raises(CommandError) as caught:
        call_command("runmicroservice", "defualt", stdout=StringIO())
    path = "MICROSERVICES['SERVERS']['defualt']"
    assert str(caught.value) == f"{path}: unknown; did you mean 'default'?"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_wrong_drain_timeout(seconds: str) -> None:
    """So is a time that is none."""
    with pytest.raises(CommandError, match=r"^--drain-timeout: .* is not a number"):
        call_command("runmicroservice", f"--drain-timeout={seconds}", stdout=StringIO())


def test_wrong_limits() -> None:
    """A wrong limit of the process is refused before anything starts."""
    with override_settings(MICROSERVICES={"SYNC_THREADS": 0}):  # noqa: SIM117
        with pytest.raises(CommandError, match="SYNC_THREADS"):
            call_command("runmicroservice", stdout=StringIO())


async def test_chosen_servers(
    run: Run, port: int, free_port: Callable[[], int]
) -> None:
    """Only the servers that are named run."""
    other = {"OPTIONS": {"port": free_port()}}
    servers = {"default": other, "chosen": {"OPTIONS": {"port": port}}}
    async with run("chosen", MICROSERVICES={"SERVERS": servers}) as command:
        await command.line("Ready")
    assert f"chosen       tcp://127.0.0.1:{port}" in command.text
    assert "default " not in command.text


async def test_server_without_handlers(run: Run, port: int) -> None:
    """A server that answers nothing says so."""
    server = {"OPTIONS": {"port": port}, "HANDLERS": []}
    async with run(MICROSERVICES={"SERVERS": {"default": server}}) as command:
        await command.line("Ready")
    assert command.lines[-2].endswith("no handlers")


# --- stopping ---------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains(
    run: Run,
    port: int,
    number: signal.Signals,
    debug: bool,  # noqa: FBT001
) -> None:
    """What was accepted is answered after the signal; then it ends with 0.

    So it is under the reloader, where Ctrl-C comes to both processes.
    """
    async with run(DEBUG=debug) as command:
        async with holding(command, port) as peer:
            if debug and number is signal.SIGINT:
                os.killpg(command.process.pid, number)
            else:
                command.send(number)
            await closed(port)
            peer.send("release")
            replies = [await peer.reply(), await peer.reply()]
        assert {reply["id"] for reply in replies} == {"hold", "release"}
        assert await command.ended() == 0
    assert "Traceback" not in command.text


async def test_second_signal(run: Run, port: int) -> None:
    """A second signal ends it at once with 130, whatever still runs."""
    async with run() as command, holding(command, port):
        command.send(signal.SIGTERM)
        await closed(port)
        command.send(signal.SIGTERM)
        assert await command.ended() == 130
    assert command.lines[-1].endswith("Stopped at once.")


async def test_drain_timeout(run: Run, port: int) -> None:
    """What is not finished in time is given up, and it ends with 1."""
    async with run("--drain-timeout", "0.1") as command, holding(command, port):
        command.send(signal.SIGTERM)
        assert await command.ended() == 1
    assert "messages were not finished in time." in command.text


# --- development ------------------------------------------------------------------


async def test_messages_are_shown_under_debug(run: Run, port: int) -> None:
    """Under DEBUG each message is a line on the console."""
    async with run("--noreload", DEBUG=True) as command, client_on(port) as client:
        await command.line("Ready")
        await client.asend({"cmd": "sum"}, [1, 2])
        line = await command.line("request")
    assert 'INFO request {"cmd":"sum"} ok' in line


async def test_messages_are_not_shown_otherwise(run: Run, port: int) -> None:
    """Without DEBUG nothing is written for a message that is answered."""
    async with run() as command, client_on(port) as client:
        await command.line("Ready")
        await client.asend({"cmd": "sum"}, [1, 2])
        command.send(signal.SIGTERM)
        await command.ended()
    assert "sum" not in command.text.partition("Ready.")[2]


RELOADED = """
import asyncio
from django_microservices import message_pattern

released = asyncio.Event()

@message_pattern("version")
async def version(data: None) -> int:
    return 1

@message_pattern("slow")
async def slow(data: None) -> str:
    print("slow", flush=True)
    await released.wait()
    return "done"

@message_pattern("go")
async def go(data: None) -> None:
    released.set()
"""


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """Write an app that a test changes."""
    folder = tmp_path / "reloaded_app"
    folder.mkdir()
    (folder / "__init__.py").touch()
    path = folder / "handlers.py"
    path.write_text(RELOADED)
    return path


def change(path: Path, old: str, new: str) -> None:
    """Change a file."""
    path.write_text(path.read_text().replace(old, new))


@asynccontextmanager
async def changing(path: Path, old: str, new: str) -> AsyncIterator[None]:
    """Change a file, again and again: the reloader may not have seen it before."""
    change(path, old, new)

    async def touch() -> None:
        for later in itertools.count(time.time() + 10, 10):
            os.utime(path, (later, later))
            await asyncio.sleep(0.3)

    touching = asyncio.ensure_future(touch())
    yield
    touching.cancel()


async def test_reload_drains(run: Run, port: int, handlers: Path) -> None:
    """A change of code reloads it, after what was accepted is answered."""
    async with (
        run(DEBUG=True, EXTRA_APPS=["reloaded_app"]) as command,
        client_on(port) as client,
    ):
        await command.line("Ready")
        async with peer_of(port) as peer:
            peer.send("slow")
            await command.line("slow")
            async with changing(handlers, "return 1", "return 2"):
                await closed(port)
            peer.send("go")
            replies = [await peer.reply(), await peer.reply()]
        assert {reply["id"] for reply in replies} == {"slow", "go"}
        await command.line("Ready")
        assert await client.asend("version", None) == 2
    assert "Traceback" not in command.text


async def test_drain_timeout_under_the_reloader(run: Run, port: int) -> None:
    """What is not finished in time is told by the exit code there, too."""
    async with (
        run("--drain-timeout", "0.1", DEBUG=True) as command,
        holding(command, port),
    ):
        command.send(signal.SIGTERM)
        assert await command.ended() == 1


async def test_second_signal_under_the_reloader(run: Run, port: int) -> None:
    """A second signal ends all of it at once."""
    async with run(DEBUG=True) as command, holding(command, port):
        command.send(signal.SIGTERM)
        await closed(port)
        command.send(signal.SIGTERM)
        assert await command.ended() == 130


async def test_reload_with_work_left(run: Run, port: int, handlers: Path) -> None:
    """A handler that hangs does not keep new code from being run."""
    async with run(
        "--drain-timeout", "0.1", DEBUG=True, EXTRA_APPS=["reloaded_app"]
    ) as command:
        await command.line("Ready")
        async with peer_of(port) as peer:
            peer.send("slow")
            await command.line("slow")
            async with changing(handlers, "return 1", "return 2"):
                await command.line("Ready")


async def test_error_under_the_reloader(run: Run, port: int, handlers: Path) -> None:
    """An error in code is told, and the next change may mend it."""
    change(handlers, '"go"', '"slow"')
    async with run(DEBUG=True, EXTRA_APPS=["reloaded_app"]) as command:
        await command.line("E003")
        async with changing(handlers, '"slow")\nasync def go', '"go")\nasync def go'):
            await command.line("Ready")
    assert "Traceback" not in command.text


async def test_port_taken_under_the_reloader(run: Run, port: int) -> None:
    """A port that is taken ends the reloader as well, rather than going round."""
    with socket.create_server(("127.0.0.1", port)):
        async with run(DEBUG=True) as command:
            assert await command.ended() == 1
    assert "Cannot start: " in command.text
