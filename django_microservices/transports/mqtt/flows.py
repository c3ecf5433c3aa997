"""What is under way on one connection, by packet identifier, without I/O.

Source: MQTT 3.1.1 and 5, sections 2.2.1 and 4.3; of 5 also 4.9 (flow control).
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...exceptions import ConnectionLost
from .packets import Ack, Kind, Oversized, Publish, ack_packet, acknowledged_publish
from .reasons import REFUSED

LARGEST_ID = 65_535

Write = Callable[[bytes], None]
Done = Callable[[Ack | ConnectionLost], None]

_ANSWERS = {
    Kind.SUBSCRIBE: Kind.SUBACK,
    Kind.UNSUBSCRIBE: Kind.UNSUBACK,
}
_CONFIRMS = {1: Kind.PUBACK, 2: Kind.PUBREC}


class Outgoing(NamedTuple):
    """A message of QoS 1 or 2; ``flags`` are those of its first byte."""

    flags: int
    topic: bytes
    properties: bytes
    payload: bytes
    done: Done

    @property
    def qos(self) -> int:
        """How often it must arrive."""
        return self.flags >> 1 & 3


class Asked:
    """What we asked of the broker, until it answers.

    ``done(answer)`` is called once for each: with the packet that ends it, or with a
    :class:`ConnectionLost` by :meth:`fail`. Of messages at most ``window`` are under
    way; the rest wait in order.
    """

    def __init__(self, write: Write, window: int = LARGEST_ID) -> None:
        self.window = window
        self._write = write
        self._last_id = 0
        self._pending: dict[int, tuple[Kind, Done]] = {}
        self._waiting: deque[Outgoing] = deque()
        self._messages = 0

    def ask(self, kind: Kind, make: Callable[[int], bytes], done: Done) -> None:
        """Write the SUBSCRIBE or UNSUBSCRIBE that ``make(packet_id)`` returns."""
        packet_id = self._new_id()
        self._pending[packet_id] = (_ANSWERS[kind], done)
        self._write(make(packet_id))

    def publish(self, outgoing: Outgoing) -> None:
        """Write a message, now or when there is room for it."""
        if self._messages >= self.window or self._waiting:
            self._waiting.append(outgoing)
        else:
            self._send(outgoing)

    def _send(self, outgoing: Outgoing) -> None:
        flags, topic, properties, payload, done = outgoing
        packet_id = self._new_id()
        self._messages += 1
        self._pending[packet_id] = (_CONFIRMS[outgoing.qos], done)
        self._write(acknowledged_publish(flags, topic, packet_id, properties, payload))

    def _new_id(self) -> int:
        """Return an identifier that is not in use."""
        candidate = self._last_id
        for _ in range(LARGEST_ID):
            candidate = candidate % LARGEST_ID + 1
            if candidate not in self._pending:
                self._last_id = candidate
                return candidate
        message = "More than 65,535 packets wait for the broker's answer."
        raise OverflowError(message)

    def answered(self, ack: Ack) -> None:
        """Take an answer; one to nothing that was asked is ignored."""
        kind, done = self._pending.get(ack.packet_id, (None, None))
        if ack.kind is not kind or done is None:
            return
        if kind is Kind.PUBREC and ack.codes[0] < REFUSED:
            self._pending[ack.packet_id] = (Kind.PUBCOMP, done)
            self._write(ack_packet(Kind.PUBREL, ack.packet_id))
            return
        del self._pending[ack.packet_id]
        if kind not in _ANSWERS.values():
            self._messages -= 1
        done(ack)
        while self._waiting and self._messages < self.window:
            self._send(self._waiting.popleft())

    def fail(self, reason: str) -> None:
        """The connection is gone: so is every answer."""
        pending, self._pending = self._pending, {}
        waiting, self._waiting = self._waiting, deque()
        dones: Iterable[Done] = [
            *(done for _, done in pending.values()),
            *(outgoing.done for outgoing in waiting),
        ]
        for done in dones:
            done(ConnectionLost(reason))


class Accepted:
    """The messages of QoS 1 and 2 that came, until we acknowledge them.

    A message of QoS 2 is confirmed in two steps, and between them its identifier says
    that the broker may send it once more, and that it is the same.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._open: set[int] = set()
        self._unreleased: set[int] = set()

    def is_new(self, publish: Publish | Oversized) -> bool:
        """Whether to handle it; one that is confirmed already is confirmed again."""
        packet_id = publish.packet_id
        if packet_id in self._open:
            return False
        if publish.qos == 2 and packet_id in self._unreleased:  # noqa: PLR2004
            self._write(ack_packet(Kind.PUBREC, packet_id))
            return False
        self._open.add(packet_id)
        return True

    def acknowledge(self, qos: int, packet_id: int) -> None:
        """Tell the broker that it may forget a message."""
        self._open.discard(packet_id)
        if qos == 1:
            self._write(ack_packet(Kind.PUBACK, packet_id))
        else:
            self._unreleased.add(packet_id)
            self._write(ack_packet(Kind.PUBREC, packet_id))

    def released(self, ack: Ack) -> None:
        """Take a PUBREL: the message will not come again."""
        self._unreleased.discard(ack.packet_id)
        self._write(ack_packet(Kind.PUBCOMP, ack.packet_id))
