"""A message that has not one handler: several, or none."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..wire.messages import Message, Reply
from .delivery import ACK, DEAD, RETRY, Delivery

if TYPE_CHECKING:
    from ..transports.base import Respond

logger = logging.getLogger(__name__)


class Fanout:
    """An event that several handlers listen to: done when all of them are.

    An event is tried again where one of them wants that, else dead where one of them
    is; a request is answered and done.
    """

    is_stream = False
    takes_place = True

    def __init__(self, message: Message, respond: "Respond | None") -> None:
        self.message = message
        self.respond = respond
        self.outcome: str | None = None
        self.reason = ""
        self.delay: float | None = None
        self.parts: list[Delivery] = []
        self._left = 0
        self._callback: Callable[[Any], None] | None = None

    def start(self, parts: list[Delivery]) -> None:
        """Run all handlers in parallel."""
        self.parts = parts
        self._left = len(parts)
        for part in parts:
            part.start()
            part.when_done(self._part_done)

    def _part_done(self, _: Delivery) -> None:
        self._left -= 1
        if self._left:
            return
        worst = min(self.parts, key=lambda part: _BAD_FIRST.index(part.outcome))
        self.outcome, self.reason, self.delay = worst.outcome, worst.reason, worst.delay
        if self.respond is not None:
            self.outcome = ACK
            answer(self.respond, Reply(self.message.id))
        if self._callback is not None:
            self._callback(self)

    def when_done(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(delivery)`` once all are done."""
        if self.outcome is not None:
            callback(self)
        else:
            self._callback = callback

    def cancel(self) -> None:
        """Cancel every handler; nobody wants the answer any more."""
        self.respond = None
        for part in self.parts:
            part.cancel()


_BAD_FIRST = (RETRY, DEAD, ACK)


class Settled:
    """A message for which nothing runs: no handler takes it, or not this copy."""

    delay: float | None = None
    is_stream = False
    takes_place = True

    def __init__(self, message: Message, outcome: str, reason: str = "") -> None:
        self.message = message
        self.outcome: str | None = outcome
        self.reason = reason

    def when_done(self, callback: Callable[[Any], None]) -> None:
        """It is done already."""
        callback(self)

    def cancel(self) -> None:
        """Nothing runs."""


def answer(respond: "Respond", reply: Reply) -> None:
    """Send a reply that is the only one: nothing is left to hold back."""
    try:
        waiting = respond(reply)
    except Exception:
        logger.exception("The answer could not be sent.")
    else:
        if waiting is not None and hasattr(waiting, "close"):
            waiting.close()
