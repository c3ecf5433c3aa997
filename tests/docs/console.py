"""The shell commands of a page: run, and what they write held against the page."""

import doctest
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from django.test import Client

from .base import shown_ports
from .blocks import Block

MANAGE = ["python", "manage.py"]
LONG = "runmicroservice"
NOT_RUN = {"runserver", "shell", "startapp"}
PATIENCE = 60.0


class Command(NamedTuple):
    """A command and the output that the page shows; none means that any will do."""

    words: list[str]
    output: str
    place: str

    @property
    def verb(self) -> str:
        """The word after ``manage.py``, or the program."""
        return self.words[2] if self.words[:2] == MANAGE else self.words[0]

    def compare(self, text: str) -> None:
        """Fail where the output is not the one on the page (``...`` is anything)."""
        found = shown_ports(text)
        if self.output and not _agree(self.output, found):
            message = (
                f"{self.place}: {shlex.join(self.words)} wrote\n{found}\n"
                f"and the page shows\n{self.output}"
            )
            raise AssertionError(message)


def _agree(shown: str, found: str) -> bool:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(shown, found, options)


def commands_of(block: Block) -> Iterator[Command]:
    """Return the commands of a block: the lines that begin with ``$``."""
    for part in ("\n" + block.text.replace("\\\n", "")).split("\n$ ")[1:]:
        line, _, output = part.partition("\n")
        yield Command(shlex.split(line), output.rstrip() and output, block.place)


class Shell:
    """Runs commands; :meth:`close` ends what still runs."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None

    def run(self, command: Command) -> None:
        """Run a command that can be run: ``manage.py`` and ``curl``."""
        if command.words[0] == "curl":
            command.compare(_fetch(command.words[-1]))
        elif command.words[:2] != MANAGE or command.verb in NOT_RUN:
            return
        elif command.verb == LONG:
            self._start(command)
        else:
            self._finish(command)

    def _finish(self, command: Command) -> None:
        done = subprocess.run(
            [sys.executable, *command.words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        is_error = "Error" in command.output
        assert bool(done.returncode) == is_error, f"{command.place}: {done.stdout}"
        command.compare(done.stdout)

    def _start(self, command: Command) -> None:
        self.close()
        process = subprocess.Popen(
            [sys.executable, "-u", *command.words[1:], "--noreload"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running = process
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ready."):
                break
        command.compare("".join(lines))

    def close(self) -> None:
        """End the servers as a supervisor does, and see that they drain."""
        process, self._running = self._running, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, rest


def _fetch(url: str) -> str:
    client = Client(SERVER_NAME="localhost", raise_request_exception=False)
    response = client.get("/" + url.split("/", 3)[3])
    content = (
        b"".join(response.streaming_content)  # type: ignore[attr-defined]
        if response.streaming
        else response.content
    )
    return content.decode() + os.linesep
