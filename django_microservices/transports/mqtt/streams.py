"""The streams that a server answers with, which nobody ends who only leaves."""

import asyncio
from typing import TYPE_CHECKING, Any

from ...wire.messages import Message, Reply
from ...wire.unreadable import TOO_OLD_ERROR

if TYPE_CHECKING:
    from ..base import Deliver, Delivery, Respond

_LOOKS = 10.0
"""Seconds between two looks at how long streams go on, at most."""


class Streams:
    """Hands messages over, and ends the streams that answer them for too long.

    Readers share the topic of their answers, so that one who leaves is not missed.
    ``max_age`` is in seconds, ``None`` without a bound.
    """

    def __init__(self, deliver: "Deliver", max_age: float | None) -> None:
        self._hand_over = deliver
        self._max_age = max_age
        self._loop = asyncio.get_running_loop()
        self._begun: dict[Delivery, tuple[float, Respond]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def deliver(self, message: Message, respond: "Respond") -> "Delivery":
        """Deliver a message; keep in mind what answers it with a stream."""
        delivery = self._hand_over(message, respond)
        is_answer = delivery.is_stream and not message.is_event
        if is_answer and delivery.outcome is None:
            self._begun[delivery] = (self._loop.time(), respond)
            self._look_soon()
        return delivery

    def unheard(self, id_: Any) -> None:
        """Nobody gets the items of a request any more."""
        for delivery in tuple(self._begun):
            if delivery.message.id == id_:
                delivery.cancel()

    def unsent(self, id_: Any) -> None:
        """An item found no connection: later ones would hide that it is lost.

        Python 3.12 calls this from within :meth:`deliver`, which is to end first.
        """
        self._loop.call_soon(self.unheard, id_)

    def cut(self) -> None:
        """A connection is lost, and maybe items with it: end all, as above."""
        for delivery in tuple(self._begun):  # an end may let another begin
            delivery.cancel()

    def _look_soon(self) -> None:
        if self._timer is None:
            seconds = min(_LOOKS, self._max_age or _LOOKS)
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Forget what has ended, and end what is too old."""
        self._timer = None
        now, max_age = self._loop.time(), self._max_age
        for delivery, (since, respond) in tuple(self._begun.items()):
            if delivery.outcome is not None:
                del self._begun[delivery]
            elif max_age is not None and now - since >= max_age:
                del self._begun[delivery]
                respond(Reply(delivery.message.id, None, TOO_OLD_ERROR))
                delivery.cancel()
        if self._begun:
            self._look_soon()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
