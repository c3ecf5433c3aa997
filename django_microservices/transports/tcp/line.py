"""Where one peer's messages wait for the server's room, or for the peer to read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...exceptions import InvalidMessage
from .backlog import MOST, Backlog
from .extension import Packet, sort

if TYPE_CHECKING:
    from .peer import ServerConnection

FRAME = 2048
"""Bytes of a text that count as one more frame of what a tick handles."""


class Line:
    """What waits of one peer; there is one as long as anything must wait.

    Little is kept of a peer, so that it can still ask and cancel; then reading stops.
    """

    __slots__ = ("_connection", "_is_in_line", "backlog")

    def __init__(self, connection: "ServerConnection") -> None:
        self.backlog = Backlog()
        self._connection = connection
        self._is_in_line = False

    def hold(self, texts: Sequence[bytes]) -> None:
        """Keep messages; packets of our extension are served all the same."""
        connection = self._connection
        connection.look_for_peer(texts)
        packets: list[Packet] = []
        if connection.extension is not None:
            texts, packets = sort(texts, connection.options.read)
        if texts:
            self.backlog.keep(texts, connection.heard)
        self.go_on()
        for pattern, envelope in packets:
            connection.control(pattern, envelope)

    def work_off(self, most: int) -> int:
        """Deliver what was kept, as far as there is room; return how much it was."""
        self._is_in_line = False
        connection, backlog = self._connection, self.backlog
        intake, done = connection.intake, 0
        try:
            while backlog.count and done < most:
                if intake.outstanding >= intake.limit or self._must_wait():
                    break
                text = backlog.take()
                done += 1 + len(text) // FRAME
                connection.message_received(text)
        except InvalidMessage as error:
            connection.refuse(str(error))
        self.go_on()
        return done

    def go_on(self) -> None:
        """Stay in line, or have what is read delivered at once again."""
        connection, output = self._connection, self._connection.output
        if self._must_wait():
            pass
        elif not self.backlog.count:
            self.leave()
            connection.end_if_answered()
        elif not self._is_in_line:
            self._is_in_line = True
            connection.intake.wait(self)
        if output.lost:
            return
        if connection.deaf or output.clogged or self.backlog.size > MOST:
            self._pace()

    def _must_wait(self) -> bool:
        """Whether the peer has yet to read, or some of its streams to end."""
        output, pending = self._connection.output, self._connection.pending
        return not output.lost and (output.clogged or pending.is_full)

    def leave(self) -> None:
        """Forget what waits."""
        connection = self._connection
        if connection.line is self:
            connection.line = None
            connection.free_since = connection.loop.time()
            if connection.gone:
                connection.intake.dismiss(connection.name)
        if self._is_in_line:
            self._is_in_line = False
            connection.intake.waiting.remove(self)

    def _pace(self) -> None:
        """Read on while little is kept, and of a peer that reads."""
        connection, size = self._connection, self.backlog.size
        if connection.line is not self:
            connection.resume_reading()
        elif connection.output.clogged or size > MOST:
            if not connection.deaf:
                connection.pause_reading()
                if connection.extension is not None:
                    connection.extension.prove_life()
        elif connection.deaf and size <= MOST // 2:
            connection.resume_reading()
