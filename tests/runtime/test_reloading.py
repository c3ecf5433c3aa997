"""The parent of a command that is run anew: what it does with codes and signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from django_microservices.runtime import reloading
from django_microservices.runtime.loop import FAILED, KILLED, OK
from django_microservices.runtime.reloading import Parent

TOLD_TO_STOP = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
    os.kill(os.getppid(), signal.{name})
    signal.pause()
"""


def parent_of(script: str, *arguments: str) -> Parent:
    """Make the parent of a script."""
    source = "import os, signal, sys\n" + dedent(script)
    return Parent([sys.executable, "-c", source, *arguments], os.environ)


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_codes(tmp_path: Path, code: int) -> None:
    """A child that asks for it is run anew; any other code is the command's."""
    runs = tmp_path / "runs"
    script = """
        with open(sys.argv[1], "a") as runs:
            runs.write("x")
            first = runs.tell() == 1
        sys.exit(int(sys.argv[2]) if first else 7)
    """
    again = code in {3, 4}
    assert parent_of(script, str(runs), str(code)).run() == (7 if again else code)
    assert len(runs.read_text()) == 1 + again


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(("code", "told"), [(0, OK), (3, OK), (4, FAILED), (1, FAILED)])
def test_signal(name: str, code: int, told: int) -> None:
    """A signal is handed on, and the child's end waited for, which is the last."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert parent_of(TOLD_TO_STOP.format(code=code, name=name)).run() == told
    after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert after == before


def test_child_that_has_not_begun() -> None:
    """A child that was told to stop while it began has done nothing wrong."""
    script = "os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    assert parent_of(script).run() == OK


def test_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal ends the child, whatever it does, and the parent."""
    ends: list[int] = []
    monkeypatch.setattr(reloading, "end_process", ends.append)
    script = """
        def again(*_):
            os.kill(os.getppid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, again)
        again()
        while True:
            signal.pause()
    """
    assert parent_of(script).run() == -signal.SIGKILL
    assert ends == [KILLED]


def test_signals_while_a_child_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with signals that come before there is a child to hand them to."""
    ends: list[int] = []
    monkeypatch.setattr(reloading, "end_process", ends.append)
    begin = subprocess.Popen
    parent = parent_of("signal.pause()")

    def begin_slowly(*args: Any, **options: Any) -> Any:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        return begin(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", begin_slowly)
    assert parent.run() == OK
    assert ends == [KILLED]
