"""One message that arrived: read, answered, and settled with the broker."""

import logging
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage, MessageTooLarge
from ...wire.codecs import is_too_deep
from ...wire.headers import PEER_HEADER, remaining
from ...wire.messages import UNSET, Message, Reply
from ...wire.packets import find_id, read_envelope
from ...wire.patterns import Pattern
from ...wire.text import shown
from ...wire.unreadable import unreadable
from ..redelivery import Receipt
from .afterlife import came_by
from .names import is_private
from .packets import reply_text
from .properties import essentials, of_item, of_reply, read_texts
from .protocol import Content
from .wire import RabbitMQWire

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .intake import Intake

logger = logging.getLogger(__name__)

_UNDEFINED = Pattern.from_json(b'"undefined"')
STOPPED = b'{"status":"error","message":"The server has stopped."}'
TORN = b'{"status":"error","message":"Items were lost with a connection."}'


class Arrival(Receipt):
    """A delivery of the broker.

    ``reply_to`` is ``None`` where nobody is to be answered, ``delivery`` is what the
    server made of it; ``is_ours`` says that the caller is a client of ours.
    """

    __slots__ = (
        "content",
        "correlation_id",
        "delivery",
        "has_begun",
        "intake",
        "is_answered",
        "is_ours",
        "reply_to",
        "tag",
    )

    def __init__(self, intake: "Intake", content: Content) -> None:
        self.is_settled = False
        self.intake = intake
        self.content = content
        self.tag = content.tag
        self.reply_to: bytes | None = None
        self.correlation_id: bytes | None = None
        self.delivery: Any = None
        self.is_ours = False
        self.has_begun = False
        self.is_answered = False

    # --- in ---

    def read(self) -> Message | None:
        """Make the message; one that cannot be read is answered, or a dead letter."""
        content, headers = self.content, None
        data: Any
        try:
            table, self.correlation_id, reply_to = essentials(content.properties)
            if table:
                headers = read_texts(table)
                self.is_ours = PEER_HEADER in headers
        except ValueError:
            self._refuse(UNSET, "its properties cannot be read")
            return None
        if reply_to is not None:
            self.reply_to = self._allowed(reply_to)
        body = content.body
        if body is None:
            reason = (
                f"its {content.size} bytes are over max_message_size; "
                f"kept are the first {len(content.head)}"
            )
            self._refuse(None, reason)
            return None
        try:
            envelope = read_envelope(body)
        except InvalidMessage as error:
            self._refuse(find_id(body), str(error))
            return None
        if envelope is None or not (envelope.pattern or envelope.data):
            pattern, data, id_ = self._foreign_pattern(), body, UNSET
        else:
            raw = bytes(envelope.pattern)
            pattern = Pattern.from_json(raw) if raw else self._foreign_pattern()
            data, id_ = envelope.data or UNSET, envelope.id
        if is_too_deep(body):
            self._refuse(id_, "it nests too deeply")
            return None
        return Message(
            pattern,
            data,
            id_,
            headers,
            None if headers is None else remaining(headers),
            wire=RabbitMQWire(content),
            settle=None if self.intake.options.no_ack else self.settle,
        )

    def _foreign_pattern(self) -> Pattern:
        """Return the pattern of a message that names none.

        Where it came through an exchange that is the routing key.
        """
        exchange, routing_key = came_by(self.content)
        return Pattern.from_channel(routing_key) if exchange else _UNDEFINED

    def _allowed(self, reply_to: bytes) -> bytes | None:
        """Return whom to answer: nobody, where that may be somebody else's queue."""
        if is_private(reply_to) or reply_to in self.intake.options.allowed_replies:
            return reply_to
        self.intake.refused += 1
        name = shown(reply_to.decode(errors="replace"))
        logger.warning("No answer goes to the queue %s: it is not allowed.", name)
        return None

    def _refuse(self, id_: Any, reason: str) -> None:
        """Answer a message that cannot be read, else make it a dead letter."""
        queue, reply = self.intake.queue, None
        if self.reply_to is not None:
            reply = unreadable(id_, f"in {queue!r} {shown(reason)}")
        if reply is not None:
            self.respond(reply)
            self.settle("ack")
        else:
            logger.warning("Refused a message in %r: %s.", queue, shown(reason))
            self.settle("dead", None, reason)

    # --- out ---

    def respond(self, reply: Reply) -> "Awaitable[None] | None":
        """Publish a reply; an awaitable says that the broker does not keep up.

        Raises :class:`MessageTooLarge`.
        """
        text = reply_text(reply)
        most = self.intake.options.max_message_size
        if len(text) > most:
            message = f"An answer of {len(text)} bytes is over max_message_size."
            raise MessageTooLarge(message)
        if self.reply_to is None or self.is_answered:
            return None
        self.has_begun = True
        self.is_answered = reply.last
        id_, publishing = self.correlation_id, self.intake.publishing
        if reply.last:
            return publishing.reply(self.reply_to, of_reply(id_), text)
        properties = of_reply(id_) if id_ is None or not self.is_ours else of_item(id_)
        dropped = publishing.dropped
        waiting = publishing.reply(self.reply_to, properties, text)
        if publishing.dropped > dropped:
            self.intake.consuming.loop.call_soon(self.tear)  # not amid its own step
        return waiting

    def tear(self) -> None:
        """End a stream of which an item may be lost: its reader must know."""
        if self.has_begun and not self.is_answered:
            self._break_off(TORN)
            self.delivery.cancel()

    def _break_off(self, error: bytes) -> None:
        """End a stream by an error of ours, which is never too large."""
        assert self.reply_to is not None
        self.is_answered = True
        text = reply_text(Reply(None, None, error))
        properties = of_reply(self.correlation_id)
        self.intake.publishing.reply(self.reply_to, properties, text)

    def finished(self, delivery: Any) -> None:
        """Tell the broker what became of it: what is answered is done."""
        outcome = delivery.outcome
        if outcome != "ack" and self.has_begun:
            if not self.is_answered:  # nobody else may begin the stream again
                self._break_off(STOPPED)
            outcome = "ack"
        if not self.is_settled:
            self.is_settled = True
            self.tell(outcome, delivery.delay, delivery.reason)
        self.intake.finished(self)

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, have it delivered again, or bury it."""
        if outcome == "ack":
            self.intake.acks.ack(self.tag)
        else:
            self.intake.failures.take(self, outcome, delay, reason)
