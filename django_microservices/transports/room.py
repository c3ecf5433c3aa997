"""A bound on what is in flight, for the wires whose broker may send more than that."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..wire.messages import UNSET, Message

if TYPE_CHECKING:
    from .base import Deliver, Delivery, Respond

Item = tuple[Message, "Respond", Callable[[Any], None] | None, int, float]


class Room:
    """At most ``limit`` deliveries at once; what arrives meanwhile waits in order.

    ``pause()`` is called when what waits weighs ``high_water``, so that no more is read
    from the broker, and ``resume()`` when half of it is gone. Unless it is said
    otherwise as many wait as may be in flight. What a message waited is gone from its
    caller's patience.
    """

    def __init__(
        self,
        limit: int,
        deliver: "Deliver",
        pause: Callable[[], None],
        resume: Callable[[], None],
        *,
        high_water: int | None = None,
    ) -> None:
        self.limit = limit
        self.deliver = deliver
        self.high_water = limit if high_water is None else high_water
        self.weight = 0
        self.in_flight = 0
        self.is_paused = False
        self.waiting: deque[Item] = deque()
        self._pause = pause
        self._resume = resume
        self._working = False
        self._empty: asyncio.Future[None] | None = None
        self._finished = self.finished  # bound once, not for every message

    def take(
        self,
        message: Message,
        respond: "Respond",
        finished: Callable[[Any], None] | None = None,
        weight: int = 1,
    ) -> None:
        """Deliver a message, now or when there is room.

        ``finished(delivery)`` is called when it is done.
        """
        if self.in_flight < self.limit and not self.waiting:
            self._begin(message, respond, finished)
            return
        self.waiting.append((message, respond, finished, weight, monotonic()))
        self.weight += weight
        if self.weight >= self.high_water and not self.is_paused:
            self.is_paused = True
            self._pause()

    def _begin(
        self,
        message: Message,
        respond: "Respond",
        finished: Callable[[Any], None] | None,
    ) -> None:
        self.in_flight += 1
        delivery = self.deliver(message, respond)
        if finished is None:
            delivery.when_done(self._finished)
        else:
            delivery.when_done(partial(self._finished_with, finished))

    def finished(self, _: Any) -> None:
        """Give a place to what has waited longest."""
        self.in_flight -= 1
        if self.waiting and not self._working:
            self._work_off()
        if self._empty is not None and not (self.in_flight or self.waiting):
            self._empty.set_result(None)
            self._empty = None

    def _finished_with(
        self, finished: Callable[[Any], None], delivery: "Delivery"
    ) -> None:
        finished(delivery)
        self.finished(delivery)

    def _work_off(self) -> None:
        """Begin what waits; what is done at once comes back here by finished()."""
        self._working = True
        try:
            while self.waiting and self.in_flight < self.limit:
                message, respond, finished, weight, since = self.waiting.popleft()
                self.weight -= weight
                if message.timeout is not None:
                    message.timeout -= monotonic() - since
                self._begin(message, respond, finished)
        finally:
            self._working = False
        if self.is_paused and self.weight <= self.high_water // 2:
            self.is_paused = False
            self._resume()

    def drop(self) -> list[Message]:
        """Forget and return what has not begun."""
        dropped = [message for message, *_ in self.waiting]
        self.waiting.clear()
        self.weight = 0
        return dropped

    def drop_requests(self) -> None:
        """Forget the requests that have not begun: they would be answered to nobody."""
        self.waiting = deque(one for one in self.waiting if one[0].id is UNSET)
        self.weight = sum(weight for *_, weight, _ in self.waiting)

    async def empty(self) -> None:
        """Return when nothing is in flight and nothing waits."""
        while self.in_flight or self.waiting:
            if self._empty is None:
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)
