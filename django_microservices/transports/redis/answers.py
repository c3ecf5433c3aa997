"""The answers to requests: published, where somebody listens to them."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...wire.messages import Message, Reply
from ...wire.packets import write_reply
from ..stream import Drained
from .connection import Connection
from .protocol import check, publish

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Deliver, Delivery, Respond


class Answers:
    """All answers that one intake owes, ``most`` bytes each packet at most."""

    def __init__(self, pub: Connection, deliver: "Deliver", most: int) -> None:
        self.pub = pub
        self.open: set[Answer] = set()
        self._deliver = deliver
        self._most = most

    def deliver(self, message: Message, respond: "Respond") -> "Delivery":
        """Deliver a message; if it is a request, its answer can end it from now on."""
        delivery = self._deliver(message, respond)
        if respond is not nobody:
            respond.delivery = delivery  # type: ignore[attr-defined] # an Answer
            self.open.add(respond)  # type: ignore[arg-type]
        return delivery

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
        """End a stream to which nobody listens any more."""
        if listeners == answer.echoes and self.pub.counts_all:
            answer.delivery.cancel()


class Answer:
    """What answers one request: called with each packet.

    ``head`` begins its PUBLISH commands; ``echoes`` is how many of the listeners that
    Redis counts are ourselves.
    """

    __slots__ = ("_answers", "delivery", "echoes", "head")

    def __init__(self, answers: Answers, head: bytes, echoes: int = 0) -> None:
        self._answers = answers
        self.head = head
        self.echoes = echoes
        self.delivery = cast("Delivery", None)  # once it is delivered

    def __call__(self, reply: Reply) -> "Awaitable[None] | None":
        """Send a packet."""
        return self._answers.publish(self, reply)

    def finished(self, _: Any) -> None:
        """Owe it no more."""
        self._answers.open.discard(self)


def nobody(_: Reply) -> None:
    """Take the answer to an event."""
