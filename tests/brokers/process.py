"""A private server process: its port, its folder, its start and its certain end."""

import atexit
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

PORTS = range(20_000, 32_001)


class ServerUnavailableError(Exception):
    """A server cannot be had here; the text is the one-line reason."""


def free_port() -> int:
    """Return a port of our range on which nobody listens."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    message = "No free port was found between 20000 and 32000."
    raise ServerUnavailableError(message)


class ServerProcess:
    """A server on loopback that ends with the tests, however they end.

    A kind of server sets ``name``, gives ``command()``, and where needed ``prepare()``
    (once, before the first start), ``is_ready()``, ``stop_signal`` and ``users``: whom
    to run as where root is refused, the first that exists.
    """

    name = "server"
    stop_signal = signal.SIGTERM
    users: tuple[str, ...] = ()
    patience = 30.0  # seconds for starting, and for stopping

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.user = self._find_user()
        self.process: subprocess.Popen[bytes] | None = None
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        atexit.register(self.close)
        _end_tests_on_sigterm()
        self.prepare()

    def command(self) -> list[str]:
        """Give the command line of the server itself, not of a script around it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Fill the data folder."""

    def is_ready(self) -> bool:
        """Whether the server answers; here: whether it listens."""
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def start(self) -> None:
        """Start, and wait until the server answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.as_user(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
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
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(self.patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good, and remove the data."""
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> None:
        """Run a tool of the server's, as its user."""
        done = subprocess.run(
            self.as_user(command), capture_output=True, cwd=self.folder, check=False
        )
        if done.returncode:
            message = f"{command[0]} failed: {done.stderr.decode()[-500:]}"
            raise ServerUnavailableError(message)

    def as_user(self, command: list[str]) -> list[str]:
        """Prefix a command so that it runs as our user, and dies with the tests."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return self._as_user_without_setpriv(command)
        # The kernel signals the server when the tests are killed with no time to act.
        options = ["--pdeathsig", self.stop_signal.name.removeprefix("SIG")]
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


def _end_tests_on_sigterm() -> None:
    """Let SIGTERM end pytest as Ctrl-C does, so that fixtures and atexit clean up."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
