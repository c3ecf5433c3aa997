"""A server by its URL: one of the environment's, or a private one."""

import os
from typing import Any, ClassVar, Generic, Self, TypeVar

from .process import ServerProcess, ServerUnavailableError

Process = TypeVar("Process", bound=ServerProcess)


class Server(Generic[Process]):
    """A server by its URL; one with a ``process`` is ours to stop and start.

    A kind of server names its ``variable`` of the environment, and ``kind``, the class
    of its processes.
    """

    variable: ClassVar[str]
    kind: type[Process]

    def __init__(self, url: str, process: Process | None = None) -> None:
        self.url = url
        self.process = process

    @classmethod
    def open(cls) -> Self:
        """Return a running server: the environment's, else a private one.

        Raises :class:`ServerUnavailableError` with the one-line reason.
        """
        url = os.environ.get(cls.variable)
        return cls(url) if url else cls.private()

    @classmethod
    def private(cls, **options: Any) -> Self:
        """Return a server of our own that runs; ``options`` are those of its kind."""
        process: Any = cls.kind(**options)
        try:
            process.start()
        except BaseException:
            process.close()
            raise
        return cls(process.url, process)

    def start(self) -> None:
        """Start, and wait until the server answers."""
        self.ours.start()

    def stop(self) -> None:
        """Stop in an orderly way; connections are cut, and durable data is kept."""
        self.ours.stop()

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self.ours.restart()

    def kill(self) -> None:
        """End it with no time to act (SIGKILL)."""
        self.ours.kill()

    def freeze(self) -> None:
        """Have it do nothing, with its connections open (SIGSTOP)."""
        self.ours.freeze()

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""
        self.ours.thaw()

    def recover(self) -> None:
        """Have it run, whatever a test did to it."""
        self.ours.thaw()
        if not self.ours.runs:
            self.ours.start()

    def close(self) -> None:
        """End a server of ours for good; leave another one as it is."""
        if self.process is not None:
            self.process.close()

    @property
    def ours(self) -> Process:
        """The process; an error where the server is not ours."""
        if self.process is None:
            message = f"{self.variable} names a server that the tests may not stop."
            raise ServerUnavailableError(message)
        return self.process
