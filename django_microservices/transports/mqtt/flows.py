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
_QOS_2 = 2
_CONFIRMS = {1: Kind.PUBACK, _QOS_2: Kind.PUBREC}


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
    way, and of all together as many as there are identifiers; the rest wait in order.
    """

    def __init__(self, write: Write, window: int = LARGEST_ID) -> None:
        self.window = window
        self._write = write
        self._last_id = 0
        self._pending: dict[int, tuple[Kind, Done]] = {}
        self._asking: deque[tuple[Kind, Callable[[int], bytes], Done]] = deque()
        self._waiting: deque[Outgoing] = deque()
        self._messages = 0

    def ask(self, kind: Kind, make: Callable[[int], bytes], done: Done) -> None:
        """Write the SUBSCRIBE or UNSUBSCRIBE that ``make(packet_id)`` returns.

        Where no identifier is free it is the first to get one, before all messages.
        """
        if not self._has_id:
            self._asking.append((kind, make, done))
            return
        packet_id = self._new_id()
        self._pending[packet_id] = (_ANSWERS[kind], done)
        self._write(make(packet_id))

    def publish(self, outgoing: Outgoing) -> None:
        """Write a message, now or when there is room for it."""
        if self._has_room and not self._waiting:
            self._send(outgoing)
        else:
            self._waiting.append(outgoing)

    @property
    def _has_id(self) -> bool:
        return len(self._pending) < LARGEST_ID

    @property
    def _has_room(self) -> bool:
        return self._messages < self.window and self._has_id

    def _send(self, outgoing: Outgoing) -> None:
        flags, topic, properties, payload, done = outgoing
        packet_id = self._new_id()
        self._messages += 1
        self._pending[packet_id] = (_CONFIRMS[outgoing.qos], done)
        self._write(acknowledged_publish(flags, topic, packet_id, properties, payload))

    def _new_id(self) -> int:
        """Return an identifier that is not in use; there is one."""
        candidate = self._last_id % LARGEST_ID + 1
        while candidate in self._pending:
            candidate = candidate % LARGEST_ID + 1
        self._last_id = candidate
        return candidate

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
        while self._asking and self._has_id:
            self.ask(*self._asking.popleft())
        while self._waiting and self._has_room:
            self._send(self._waiting.popleft())

    def fail(self, reason: str) -> None:
        """The connection is gone: so is every answer."""
        pending, self._pending = self._pending, {}
        asking, self._asking = self._asking, deque()
        waiting, self._waiting = self._waiting, deque()
        dones: Iterable[Done] = [
            *(done for _, done in pending.values()),
            *(done for _, _, done in asking),
            *(outgoing.done for outgoing in waiting),
        ]
        for done in dones:
            done(ConnectionLost(reason))


class Accepted:
    """The messages of QoS 1 and 2 that came, until we acknowledge them.

    A message of QoS 2 is confirmed in two steps, and what comes once more between them
    with its identifier is the same. What comes there for the first time is not: the
    broker was killed, and has forgotten whose the identifier was.

    What a broker that keeps the session sends again, over the next connection, has its
    identifier of before (MQTT 5, section 4.4): it is not handled a second time, and
    what was done in between is acknowledged then. ``steps`` counts what the broker
    began and released.
    """

    def __init__(self, write: Write | None) -> None:
        self.steps = 0
        self._write = write
        self._open: dict[int, Publish | Oversized] = {}
        self._done: set[int] = set()
        self._unreleased: set[int] = set()

    def use(self, write: Write | None) -> None:
        """Go on over another connection; ``None`` says that there is none."""
        self._write = write

    def forget(self) -> None:
        """The broker knows nothing of it any more."""
        self._open.clear()
        self._done.clear()
        self._unreleased.clear()

    def __len__(self) -> int:
        """How many messages wait for their outcome."""
        return len(self._open) - len(self._done)

    def has(self, publish: Publish | Oversized) -> bool:
        """Whether the broker still waits for the outcome of a message."""
        return self._open.get(publish.packet_id) is publish

    def is_new(self, publish: Publish | Oversized) -> bool:
        """Whether to handle it; one that is confirmed already is confirmed again."""
        packet_id = publish.packet_id
        known = self._open.get(packet_id)
        if known is not None and _is_same(known, publish):
            if packet_id in self._done:
                self.acknowledge(known)
            return False
        if publish.qos == _QOS_2 and publish.dup and packet_id in self._unreleased:
            self._say(Kind.PUBREC, packet_id)
            return False
        self.steps += 1
        self._done.discard(packet_id)
        self._unreleased.discard(packet_id)
        self._open[packet_id] = publish
        return True

    def acknowledge(self, publish: Publish | Oversized) -> None:
        """Tell the broker that it may forget a message, unless it has already."""
        if not self.has(publish):
            return
        packet_id = publish.packet_id
        if self._write is None:
            self._done.add(packet_id)
            return
        self._done.discard(packet_id)
        del self._open[packet_id]
        if publish.qos == 1:
            self._say(Kind.PUBACK, packet_id)
        else:
            self._unreleased.add(packet_id)
            self._say(Kind.PUBREC, packet_id)

    def released(self, ack: Ack) -> None:
        """Take a PUBREL: the message will not come again."""
        self.steps += 1
        self._unreleased.discard(ack.packet_id)
        self._say(Kind.PUBCOMP, ack.packet_id)

    def _say(self, kind: Kind, packet_id: int) -> None:
        if self._write is not None:
            self._write(ack_packet(kind, packet_id))


def _is_same(known: Publish | Oversized, publish: Publish | Oversized) -> bool:
    """Whether it is the message that came with its identifier before.

    A broker says when it sends one again (MQTT 5, section 3.3.1.1). Even then it may be
    another: one that was killed may have forgotten whose the identifier was.
    """
    if not publish.dup:
        return False
    if isinstance(known, Publish) and isinstance(publish, Publish):
        same = known.payload == publish.payload
    else:
        same = type(known) is type(publish)
    return same and known.topic == publish.topic
