"""Blocking AMQP 0-9-1, as much as shows that a server works."""

import socket
from types import TracebackType
from typing import Self

from pamqp import base, commands, frame, header

HEAD = 7  # bytes of a frame before its payload; one more ends it
OK = 200


class Talk:
    """A connection to the default virtual host; each method is answered by the next.

    Raises :class:`OSError` when the server hangs up or refuses.
    """

    def __init__(self, connection: socket.socket, user: str, password: str) -> None:
        self._stream = connection.makefile("rwb")
        self._stream.write(frame.marshal(header.ProtocolHeader(), 0))
        self._read()
        credentials = f"\0{user}\0{password}"
        tune = self.ask(commands.Connection.StartOk(response=credentials))
        if not isinstance(tune, commands.Connection.Tune):
            raise ConnectionRefusedError(tune)
        self._write(commands.Connection.TuneOk(tune.channel_max, tune.frame_max))
        self.ask(commands.Connection.Open())

    def ask(self, method: base.Frame, channel: int = 0) -> object:
        """Send a method, and return the frame that comes next."""
        self._write(method, channel)
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stream:
            if error is None:
                self.ask(commands.Connection.Close(OK, "", 0, 0))

    def _write(self, method: base.Frame, channel: int = 0) -> None:
        self._stream.write(frame.marshal(method, channel))

    def _read(self) -> object:
        self._stream.flush()
        head = self._stream.read(HEAD)
        size = frame.frame_parts(head)[2]
        if size is None:
            message = "The server hung up."
            raise ConnectionError(message)
        return frame.unmarshal(head + self._stream.read(size + 1))[2]
