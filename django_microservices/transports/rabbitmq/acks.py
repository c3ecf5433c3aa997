"""Acknowledgements, gathered: one frame for what a tick settled, where order allows.

``basic.ack`` with ``multiple`` settles every delivery up to its tag, so that it may
only go up to the first one that is not settled yet.
"""

from .channel import Channel
from .frames import ack, reject, requeue


class Acks:
    """The deliveries of a channel that the broker still waits for."""

    __slots__ = ("_acked", "_channel", "_open")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._open: dict[int, None] = {}  # in order, since tags only grow
        self._acked: list[int] = []
        channel.connection.before_flush = self.write

    def expect(self, tag: int) -> None:
        """A delivery came."""
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        """It is done; the broker is told when the tick ends."""
        del self._open[tag]
        self._acked.append(tag)
        self._channel.connection.flush_soon()

    def requeue(self, tag: int) -> None:
        """Give it back: it is delivered again, here or elsewhere."""
        del self._open[tag]
        self._channel.connection.write(requeue(self._channel.number, tag))

    def reject(self, tag: int) -> None:
        """Refuse it: the broker has its own dead letters, or drops it."""
        del self._open[tag]
        self._channel.connection.write(reject(self._channel.number, tag))

    def write(self) -> None:
        """Acknowledge what is done by now, behind all that was written so far."""
        acked = self._acked
        if not acked:
            return
        self._acked = []
        channel = self._channel
        first_open = next(iter(self._open), None)
        if first_open is None:
            up_to, single = acked, []
        else:
            up_to = [tag for tag in acked if tag < first_open]
            single = [tag for tag in acked if tag > first_open]
        frames = [ack(channel.number, tag) for tag in single]
        if up_to:
            frames.append(ack(channel.number, max(up_to), multiple=True))
        channel.connection.write_with(frames)
