"""Where requests are answered, and who tells that nobody listens any more."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ...wire.messages import Reply, new_id
from ...wire.packets import write_reply
from ...wire.text import shown
from ..stream import Drained
from .protocol import Packet, is_unheard
from .subjects import INBOX, is_inbox

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ...wire.messages import Message
    from ..base import Deliver, Respond
    from ..base import Delivery as AnyDelivery
    from .connection import Connection

logger = logging.getLogger(__name__)

OVERLOADED = b'{"status":"error","message":"The server is overloaded."}'
"""What answers a request for which there is no room."""


def nobody(_: Reply) -> None:
    """Answer nobody."""


class Answers:
    """Sends the replies of one server.

    The items of a stream are sent with a reply subject of our own: where nobody
    listens to them any more NATS says so there, and the handler is cancelled.
    """

    def __init__(
        self, connection: "Connection", deliver: "Deliver", prefixes: Iterable[str]
    ) -> None:
        self.connection = connection
        self.streams: dict[bytes, Answer] = {}
        self._hand_over = deliver
        self.prefixes = tuple(f"{prefix}.".encode() for prefix in prefixes)
        self._inbox = b""
        self._begun = 0
        connection.closed.add_done_callback(self._lost)

    def to(self, packet: Packet) -> "Respond":
        """Return what answers the sender of a message.

        Only an inbox is answered: what a stranger names may be anybody's subject.
        """
        if not packet.reply:
            return nobody
        if is_inbox(packet.reply, self.prefixes):
            return Answer(self, packet.reply)
        where = shown(packet.reply.decode(errors="replace"))
        logger.warning("Nothing is answered to %r, which is no inbox.", where)
        return nobody

    def deliver(self, message: "Message", respond: "Respond") -> "AnyDelivery":
        """Deliver a message, and know of its answer what to cancel."""
        delivery = self._hand_over(message, respond)
        if respond is not nobody:
            cast("Answer", respond).delivery = delivery
        return delivery

    def watched(self, answer: "Answer") -> bytes:
        """Return the reply subject for the items of a stream."""
        if not self._inbox:
            self._inbox = f"{INBOX}.{new_id()}.".encode()
            self.connection.subscribe(self._inbox + b"*", self._told)
        if not answer.stream:
            self._begun += 1
            answer.stream = self._inbox + b"%d" % self._begun
            self.streams[answer.stream] = answer
        return answer.stream

    def _told(self, packet: Packet) -> None:
        if is_unheard(packet.headers):
            answer = self.streams.pop(packet.subject, None)
            if answer is not None:
                answer.cancel()

    def _lost(self, _: object) -> None:
        for answer in tuple(self.streams.values()):
            answer.cancel()
        self.streams.clear()


class Answer:
    """Where one request is answered: called with each reply."""

    __slots__ = ("answers", "delivery", "inbox", "stream")

    def __init__(self, answers: Answers, inbox: bytes) -> None:
        self.answers = answers
        self.inbox = inbox
        self.delivery: AnyDelivery | None = None
        self.stream = b""

    def __call__(self, reply: Reply) -> "Awaitable[None] | None":
        """Send a reply; an awaitable says that NATS does not keep up.

        Raises :class:`MessageTooLarge`.
        """
        answers, heard = self.answers, b""
        connection = answers.connection
        if not reply.last:
            heard = answers.watched(self)
        elif self.stream:
            answers.streams.pop(self.stream, None)
        connection.publish(self.inbox, write_reply(reply), heard)
        return Drained(connection.drained) if connection.paused else None

    def cancel(self) -> None:
        """Nobody listens any more."""
        if self.delivery is not None:
            self.delivery.cancel()
