"""The parent of a command that is run anew whenever code changes."""

import signal
import subprocess
from collections.abc import Mapping, Sequence

from .loop import FAILED, KILLED, OK, end_process

RELOAD, UNDRAINED = 3, 4
"""How a child asks to be run anew, and does so with work left undone."""


class Parent:
    """Runs a command until it ends for good; hands the first signal on, and waits.

    Django's own parent kills its child at a signal, whatever that still has to answer.
    Ctrl-C reaches the child as well, which must not heed it: it gets SIGTERM from here.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def run(self) -> int:
        """Return the exit code, as :func:`~.loop.run` gives it."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            return self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self) -> int:
        code = RELOAD
        while code in {RELOAD, UNDRAINED} and not self._is_stopping:
            code = self._begin().wait()
        if code == UNDRAINED:
            return FAILED
        return OK if code in {RELOAD, -signal.SIGTERM} else code

    def _begin(self) -> "subprocess.Popen[bytes]":
        self._child = subprocess.Popen(  # noqa: S603 - our own command line
            self._command, env=self._environment, close_fds=False
        )
        if self._is_stopping:  # the signal came while it was begun
            self._child.terminate()
        return self._child

    def _signalled(self, *_: object) -> None:
        child = self._child
        if self._is_stopping:
            if child is not None:
                child.kill()
            end_process(KILLED)
        self._is_stopping = True
        if child is not None:
            child.terminate()
