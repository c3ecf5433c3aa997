"""What one end of a connection writes: joined, bounded, and waited for."""

import asyncio
from typing import TYPE_CHECKING

from ...exceptions import MessageTooLarge
from ..sockets import acknowledged, has_vanished
from ..stream import EAGER, EAGER_BYTES, UNREAD, Backpressure
from .protocol import units

if TYPE_CHECKING:
    from .connection import Connection

CHECK = 3.0
"""Seconds between two looks at a peer that is behind."""


class Output(Backpressure):
    """What is written to one peer.

    ``clogged`` says that the peer is so far behind that nothing more is read from it.
    ``patience`` is in seconds: a peer that is behind and reads nothing for so long is
    cut; 0 waits for ever.
    """

    __slots__ = (
        "_connection",
        "_handed",
        "_out",
        "_read",
        "_read_at",
        "_size",
        "_timer",
        "_write",
        "clogged",
        "max_size",
        "patience",
    )

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._write = connection.socket.write
        self.max_size = connection.options.max_frame_size
        self.patience = 0.0
        self.clogged = False
        self._out: list[bytes] = []
        self._size = 0
        self._handed = 0
        self._read = (-1, -1)
        self._read_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, text: bytes) -> None:
        """Send one text, together with what else this tick writes."""
        if self.lost:
            return
        out = self._out
        if not out:
            self.loop.call_soon(self.flush)
        data = self._write(text)
        out.append(data)
        self._size += len(data)
        if len(out) >= EAGER or self._size >= EAGER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what was written to the socket."""
        if not self._out:
            return
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._handed += self._size
        self._size = 0
        self._connection.transport.write(data)
        if self.paused:
            self._check_unread()

    def stop(self) -> None:
        """Write nothing more: the socket takes nothing."""
        self.lost = True
        self._out.clear()
        self._size = 0

    def check_size(self, text: bytes) -> None:
        """Raise :class:`MessageTooLarge` for a text that the peer would refuse.

        Called only for texts that have too many bytes: the wire counts UTF-16 units.
        """
        length = units(text)
        if length > self.max_size:
            message = (
                f"A message of {length} is over max_frame_size ({self.max_size}): "
                "raise it on both ends, or send less."
            )
            raise MessageTooLarge(message)

    # --- a peer that is behind ---

    @property
    def unread(self) -> int:
        """Bytes that the peer has not read, as far as they are still here."""
        return self._connection.transport.get_write_buffer_size()

    def _check_unread(self) -> None:
        """Have a peer cut that leaves too much; hear nothing from it well before that.

        Not earlier: Nest's client reads nothing while its own requests back up, and
        two that wait for each other would wait for ever.
        """
        limit = self._connection.options.max_send_buffer_size
        unread = self.unread
        if limit and unread > limit:
            self._connection.overflow()
        elif not self.clogged and unread > min(limit or UNREAD, UNREAD) // 2:
            self._connection.clog()

    def why(self) -> str | None:
        """Return the reason for the end of the connection."""
        return self._connection.reason

    def pause_writing(self) -> None:
        """The peer reads too slowly. That comes and goes often, so the timer stays."""
        super().pause_writing()
        if self._timer is None:
            self._watch()

    def resume_writing(self) -> None:
        """The peer has caught up, or is gone."""
        self.clogged = False
        super().resume_writing()

    def _watch(self) -> None:
        seconds = min(CHECK, self.patience or CHECK)
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """End the connection of a peer whose host is gone, or that reads nothing."""
        self._timer = None
        if self.paused and not self.lost:
            self.check_host()
            self._check_progress()
        if self.paused and not self.lost:
            self._watch()

    def _check_progress(self) -> None:
        now = self.loop.time()
        sock = self._connection.transport.get_extra_info("socket")
        # TLS keeps what is on its way below in a buffer that cannot be seen, and only
        # the kernel knows how much of that was taken.
        read = (self._handed - self.unread, acknowledged(sock))
        if read != self._read:
            self._read, self._read_at = read, now
        elif self.patience and now - self._read_at >= self.patience:
            self._connection.abort(f"the peer read nothing for {self.patience:g} s")

    def check_host(self) -> None:
        """End the connection with a host that acknowledges nothing any more."""
        if has_vanished(self._connection.transport.get_extra_info("socket")):
            self._connection.abort("the peer's host has vanished")

    def end(self) -> None:
        """The connection has ended: wake who waits for the peer to read."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
