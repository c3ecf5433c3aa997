"""The answers to requests: published, where somebody listens to them."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...wire.messages import Message, Reply
from ...wire.packets import write_reply
from ...wire.text import shown
from ...wire.unreadable import TOO_OLD_ERROR
from ..stream import Drained
from .connection import Connection
from .protocol import ReplyError, check, publish

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Deliver, Delivery, Respond

logger = logging.getLogger(__name__)


class Answers:
    """All answers that one intake owes, ``most`` bytes each packet at most.

    ``max_age`` is in seconds, for streams of which Redis does not tell whether their
    own reader has left; ``None`` without a bound.
    """

    def __init__(
        self,
        pub: Connection,
        deliver: "Deliver",
        most: int,
        max_age: float | None = None,
    ) -> None:
        self.pub = pub
        self.open: set[Answer] = set()
        self._deliver = deliver
        self._most = most
        self._max_age = max_age

    def deliver(self, message: Message, respond: "Respond") -> "Delivery":
        """Deliver a message; if it is a request, its answer can end it from now on."""
        delivery = self._deliver(message, respond)
        if respond is not nobody:
            self._owe(cast("Answer", respond), delivery)
        return delivery

    def _owe(self, answer: "Answer", delivery: "Delivery") -> None:
        answer.delivery = delivery
        self.open.add(answer)
        tells = answer.is_own and self.pub.counts_all
        if delivery.is_stream and not tells and self._max_age is not None:
            later = self.pub.loop.call_later
            answer.timer = later(self._max_age, self._too_old, answer)

    def _too_old(self, answer: "Answer") -> None:
        """End a stream whose reader may be gone."""
        answer(Reply(answer.delivery.message.id, None, TOO_OLD_ERROR))
        answer.delivery.cancel()

    def cancel(self) -> None:
        """End everything that is owed: nothing reaches anybody any more."""
        for answer in tuple(self.open):
            answer.delivery.cancel()

    def publish(self, answer: "Answer", reply: Reply) -> "Awaitable[None] | None":
        """Publish a packet; an awaitable says that Redis does not keep up."""
        text = write_reply(reply)
        check(text, self._most)
        pub = self.pub
        heard = None if reply.last else partial(self._heard, answer)
        pub.send(publish(answer.head, text), heard)
        return Drained(pub.drained) if pub.paused else None

    def _heard(self, answer: "Answer", listeners: Any) -> None:
        """End a stream to which nobody listens any more, or may listen."""
        if isinstance(listeners, ReplyError):
            logger.error("Redis refused an answer: %s", shown(str(listeners)))
            answer.delivery.cancel()
        elif listeners == answer.echoes and self.pub.counts_all:
            answer.delivery.cancel()


class Answer:
    """What answers one request: called with each packet.

    ``head`` begins its PUBLISH commands; ``echoes`` is how many of the listeners that
    Redis counts are ourselves; ``is_own`` says that the others are its reader alone.
    """

    __slots__ = ("_answers", "delivery", "echoes", "head", "is_own", "timer")

    def __init__(
        self, answers: Answers, head: bytes, echoes: int = 0, *, is_own: bool = False
    ) -> None:
        self._answers = answers
        self.head = head
        self.echoes = echoes
        self.is_own = is_own
        self.delivery = cast("Delivery", None)  # once it is delivered
        self.timer: asyncio.TimerHandle | None = None

    def __call__(self, reply: Reply) -> "Awaitable[None] | None":
        """Send a packet."""
        return self._answers.publish(self, reply)

    def finished(self, _: Any) -> None:
        """Owe it no more."""
        self._answers.open.discard(self)
        if self.timer is not None:
            self.timer.cancel()


def nobody(_: Reply) -> None:
    """Take the answer to an event."""
