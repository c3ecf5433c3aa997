"""A child process that is asked in lines of JSON, and never outlives its parent."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

Line = dict[str, Any]
WORDS = 2000


class ChildFailedError(Exception):
    """A child ended, or said what is no answer; the text has its last words."""


class Child:
    """A process whose stdin is a pipe from us, which it must end with.

    So it ends however we end: the kernel closes our side of the pipe.
    """

    patience = 10.0  # seconds for an orderly end
    answers = False  # on stdout; else what it prints is kept with its errors

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._words = ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if self.answers else self._log,
            stderr=self._log,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for the tests, which then stop us
        )

    @property
    def pid(self) -> int:
        """The process's own id."""
        return self.process.pid

    def close(self) -> None:
        """Let it end by closing its stdin, by force where that takes too long."""
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._words = self.last_words()
        self._log.close()

    def last_words(self) -> str:
        """Return the end of what it printed that was no answer."""
        if self._log.closed:
            return self._words
        start = max(0, os.fstat(self._log.fileno()).st_size - WORDS)
        return os.pread(self._log.fileno(), WORDS, start).decode(errors="replace")


class LineChild(Child):
    """A child that answers commands, several at a time, each under its ``id``.

    Its first line, ``{"id": 0}``, says that it is ready.
    """

    answers = True

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        super().__init__(command, **options)
        self._ids = itertools.count()
        self._answers: dict[int, Future[Line]] = {}
        self._end: ChildFailedError | None = None
        self._lock = threading.Lock()
        ready = self._expect()[1]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            ready.result(30)
        except BaseException:
            self.close()
            raise

    def ask(self, command: Mapping[str, Any]) -> Future[Line]:
        """Send one command; the future is its answer, or ChildFailedError."""
        assert self.process.stdin is not None
        number, answer = self._expect()
        line = json.dumps({**command, "id": number}).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):  # the reader says that it ended
            self.process.stdin.write(line)
            self.process.stdin.flush()
        return answer

    def close(self) -> None:
        """End it, and with it the thread that reads."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self._reader.join(self.patience)
        if self._reader.is_alive():
            self.process.send_signal(signal.SIGKILL)
            self._reader.join()
        super().close()

    def _expect(self) -> tuple[int, Future[Line]]:
        answer = Future[Line]()
        answer.set_running_or_notify_cancel()  # nobody may cancel what is on its way
        with self._lock:
            number = next(self._ids)
            if self._end is None:
                self._answers[number] = answer
            else:
                answer.set_exception(self._end)
        return number, answer

    def _read(self) -> None:
        assert self.process.stdout is not None
        reason = "ended"
        for text in self.process.stdout:
            try:
                line = json.loads(text)
                self._answers.pop(line["id"]).set_result(line)
            except (ValueError, KeyError, TypeError):
                reason = f"said {text[:200]!r}"
                break
        self._fail(f"The child process {reason}. {self.last_words()}".strip())

    def _fail(self, message: str) -> None:
        with self._lock:
            self._end = ChildFailedError(message)
            for answer in self._answers.values():
                answer.set_exception(self._end)
            self._answers.clear()
