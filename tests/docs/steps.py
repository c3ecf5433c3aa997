"""What is done with each block of a page, in the page's own process."""

import ast
import asyncio
import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

from django.core.checks import WARNING, run_checks
from django.core.management import call_command
from django.test import override_settings

from django_microservices import clients

from .blocks import Block
from .console import Shell, commands_of
from .project import SETTINGS, module_of
from .server import Running

NOT_IMPORTED = ("tests.py", "manage.py")


class Steps:
    """The state between the blocks of a page.

    ``first`` parts of the settings stand on earlier pages; with ``commands`` the page
    starts the servers itself.
    """

    def __init__(self, first: int, commands: bool) -> None:  # noqa: FBT001
        self._step = first
        self._commands = commands
        self._names: dict[str, Any] = {"__name__": "example"}
        self._settings: override_settings | None = None
        self._server = Running()
        self._shell = Shell()

    def prepare(self, files: list[str], blocks: list[Block]) -> None:
        """Make the tables, and import every file."""
        migrates = any("manage.py migrate" in block.text for block in blocks)
        if not migrates and any(name.endswith("models.py") for name in files):
            call_command("migrate", run_syncdb=True, verbosity=0)
        for name in files:
            if not name.endswith(NOT_IMPORTED):
                import_module(module_of(name))
        if self._step:
            self._use(self._step - 1)
        self.check("the files of the page")

    def run(self, block: Block) -> None:
        """Do with a block what its kind asks for."""
        if block.language == "console":
            for command in commands_of(block):
                self._shell.run(command)
        elif block.file == SETTINGS:
            self._use(self._step)
            self._step += 1
            self.check(block.place)
        elif block.file is None:
            self._execute(block)

    def _use(self, step: int) -> None:
        self._reset()
        steps: list[dict[str, Any]] = vars(import_module("mysite.settings"))["STEPS"]
        self._settings = override_settings(MICROSERVICES=steps[step])
        self._settings.enable()

    @staticmethod
    def check(place: str) -> None:
        """Run the system checks; a hint may pass, a warning may not."""
        found = run_checks(tags=["microservices"])
        serious = [message for message in found if message.level >= WARNING]
        assert not serious, f"{place}: {serious}"

    def _execute(self, block: Block) -> None:
        if not self._commands:
            self._server.start()
        # Padded, so that a traceback names the page and its line.
        code = compile(
            "\n" * block.line + block.text,
            str(block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        coroutine = eval(code, self._names)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(coroutine)

    @staticmethod
    def test(files: list[str]) -> None:
        """Run the tests of the page, in a process of their own."""
        if any(name.endswith("tests.py") for name in files):
            done = subprocess.run(
                [sys.executable, "manage.py", "test"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "Ran 0 tests" not in done.stderr, done.stderr

    def _reset(self) -> None:
        for client in clients.all():
            client.close()
        self._server.stop()
        self._server = Running()
        if self._settings is not None:
            self._settings.disable()
            self._settings = None

    def close(self) -> None:
        """End what still runs."""
        self._reset()
        self._shell.close()
