"""A durable consumer: asks for messages, never for more than there is room for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...wire.codecs import encode
from ...wire.messages import Subscription, new_id
from ..nats.protocol import Packet, first_values, read_status
from .api import API, nanoseconds
from .names import Delivered, delivered

if TYPE_CHECKING:
    from ..nats.connection import Connection

EXPIRES = 30.0
HEARTBEAT = 5.0
SILENCE = 3 * HEARTBEAT
"""Seconds: JetStream is asked anew when the first is over, says every second that it
still looks, and is given up when it said nothing for the last."""

_HEARTBEAT, _EXPIRED, _NO_MESSAGES, _ENDED = 100, 408, 404, 409
_GOES_ON = ("batch completed", "message size")
_NOT_TAKEN = "exceeded max"  # of questions that wait: others ask as well
_PENDING = "Nats-Pending-Messages"


class Consumer:
    """Pulls at most ``batch`` messages that are not done.

    ``received(consumer, packet, told)`` gets each, ``lost(reason)`` is called when no
    more will come.
    """

    def __init__(
        self,
        connection: "Connection",
        api: API,
        subscription: Subscription | None,
        *,
        stream: str,
        name: str,
        batch: int,
        received: Callable[["Consumer", Packet, Delivered], None],
        lost: Callable[[str], None],
    ) -> None:
        self.connection = connection
        self.subscription = subscription
        self.name = name
        self.batch = batch
        self.expected = 0
        self.in_hand = 0
        self.heard = connection.loop.time()
        self._received = received
        self._lost = lost
        self._next = api.subject(f"CONSUMER.MSG.NEXT.{stream}.{name}")
        self._inbox = f"_INBOX.{new_id()}".encode()
        self._sid = b""

    def start(self) -> None:
        """Begin to ask."""
        self._sid = self.connection.subscribe(self._inbox + b".*", self._told)
        self._ask()

    def stop(self) -> None:
        """Ask no more; what is on its way still comes."""
        self.batch = 0
        self.connection.unsubscribe(self._sid)

    def done(self) -> None:
        """Count a message out."""
        self.in_hand -= 1
        if 2 * self.expected <= self.batch - self.in_hand:
            self._ask()

    def check(self, now: float) -> None:
        """Give up a consumer of which nothing is heard, where we do listen."""
        if self.connection.deaf or not self.expected:
            self.heard = now
        elif now - self.heard > SILENCE:
            self._lost(f"the consumer {self.name!r} is silent")

    def _ask(self) -> None:
        count = self.batch - self.expected - self.in_hand
        if count <= 0:
            return
        self.expected += count
        question = {
            "batch": count,
            "expires": nanoseconds(EXPIRES),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        }
        inbox = b"%b.%d" % (self._inbox, count)  # what is said of it tells how many
        self.connection.publish(self._next, encode(question), inbox)

    def _told(self, packet: Packet) -> None:
        self.heard = self.connection.loop.time()
        told = delivered(packet.reply.decode(errors="replace"))
        if told is not None:
            self.expected = max(0, self.expected - 1)
            self.in_hand += 1
            self._received(self, packet, told)
        elif packet.headers:
            self._status(packet)

    def _status(self, packet: Packet) -> None:
        """Take note of what JetStream says of a question: it may be over."""
        block = packet.headers
        code, words = read_status(block)
        if code == _HEARTBEAT:
            return
        if code == _ENDED and words.lower().startswith(_NOT_TAKEN):
            self._not_taken(packet.subject)
            return
        goes_on = code in {_EXPIRED, _NO_MESSAGES} or (
            code == _ENDED and words.lower().startswith(_GOES_ON)
        )
        if not goes_on:
            self._lost(f"the consumer {self.name!r}: {words or code}")
            return
        left = first_values(block).get(_PENDING, "")
        self.expected -= min(self.expected, int(left) if left.isdecimal() else 0)
        self._ask()

    def _not_taken(self, inbox: bytes) -> None:
        """Ask again later what JetStream did not hear."""
        count = inbox.rpartition(b".")[2]
        self.expected -= min(self.expected, int(count) if count.isdigit() else 0)
        self.connection.loop.call_later(HEARTBEAT, self._ask)
