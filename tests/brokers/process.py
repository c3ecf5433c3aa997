"""A private server process: its port, its folder, its start and its certain end."""

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from .ports import broker_port


class ServerUnavailableError(Exception):
    """A server cannot be had here; the text is the one-line reason."""


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


class ServerProcess:
    """A server on loopback that ends with the tests, however they end.

    A kind of server sets ``name``, gives ``command()``, and where needed ``prepare()``
    (once, before the first start), ``is_ready()``, ``environment``, ``stop_signal`` and
    ``users``: whom to run as where root is refused, the first that exists.
    """

    name = "server"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL  # when the tests are killed with no time to act
    users: tuple[str, ...] = ()
    patience = 30.0  # seconds for starting, and for stopping

    def __init__(self) -> None:
        self.port = broker_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.user = self._find_user()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        atexit.register(self.close)
        _end_tests_on_sigterm()
        self.prepare()

    def command(self) -> list[str]:
        """Give the command line of the server itself, not of a script around it."""
        raise NotImplementedError

    def launch(self) -> list[str]:
        """Give the command with all that it runs in."""
        return self.as_user(self.command())

    def tool(self, command: list[str]) -> list[str]:
        """Give a command of another program with all that it runs in."""
        return self.as_user(command)

    def prepare(self) -> None:
        """Fill the data folder."""

    def is_ready(self) -> bool:
        """Whether the server answers; here: whether it listens."""
        return is_listening(self.port)

    def start(self) -> None:
        """Start, and wait until the server answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = _spawn(
                self.launch(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self.environment,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop us
            )
        deadline = time.monotonic() + self.patience
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                message = f"{self.name} did not start: {self._last_words()}"
                raise ServerUnavailableError(message)
            threading.Event().wait(0.02)

    def stop(self) -> None:
        """Stop in an orderly way, by force where that takes too long."""
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        self.thaw()  # a frozen process would not hear it
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End with no time to act (SIGKILL)."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Have it do nothing, with its connections open (SIGSTOP)."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all processes that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(self.process.pid, number)
            if number is signal.SIGSTOP:  # which takes each of its threads a moment
                os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    @property
    def runs(self) -> bool:
        """Whether its process is there, be it frozen."""
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        """Stop for good, and remove the data."""
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> str:
        """Run a tool of the server's, as its user, and return what it printed."""
        done = subprocess.run(
            self.tool(command),
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | self.environment,
            check=False,
        )
        if done.returncode:
            message = f"{command[0]} failed: {done.stderr[-500:]}"
            raise ServerUnavailableError(message)
        return done.stdout

    def as_user(self, command: list[str]) -> list[str]:
        """Prefix a command so that it runs as our user, and dies with the tests."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return self._as_user_without_setpriv(command)
        options = ["--pdeathsig", self.death_signal.name.removeprefix("SIG")]
        if self.user is not None:
            options += [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}"]
            options += ["--clear-groups"]
        return [setpriv, *options, "--", *command]

    def _as_user_without_setpriv(self, command: list[str]) -> list[str]:
        if self.user is None:
            return command
        runuser = shutil.which("runuser")
        if runuser is None:
            message = f"{self.name} refuses root; neither setpriv nor runuser exists."
            raise ServerUnavailableError(message)
        return [runuser, "-u", self.user.pw_name, "--", *command]

    def _find_user(self) -> pwd.struct_passwd | None:
        if os.geteuid() != 0 or not self.users:
            return None
        for user in self.users:
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(user)
        message = f"{self.name} refuses root, and none of {self.users} exists."
        raise ServerUnavailableError(message)

    def _last_words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-500:].strip()


def _spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process from a thread that lives as long as the process.

    What the kernel takes for its parent is the thread that started it: a server that
    a test starts from a worker thread would end with that thread.
    """
    started = Future[subprocess.Popen[bytes]]()

    def own() -> None:
        try:
            process = subprocess.Popen(command, **options)
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    threading.Thread(target=own, daemon=True).start()
    return started.result()


def _end_tests_on_sigterm() -> None:
    """Let SIGTERM end pytest as Ctrl-C does, so that fixtures and atexit clean up."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
