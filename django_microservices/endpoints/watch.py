"""What is looked at now and then, so that messages pay nothing for it."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .delivery import Delivery
    from .server import Server

logger = logging.getLogger(__name__)

STALLED = 20.0
"""Seconds after which a server that is full, and of which nothing ends, is not ready:
who asks every 10 s knows of it within 30 (``reference/reliability.md``, row 21)."""


class Watch:
    """Looks after what a server has in flight.

    ``is_stalled`` says that it consumes nothing any more, though it is connected: each
    of its places has been taken for :data:`STALLED` seconds, by the same delivery or by
    a message whose dead letter the broker refuses.
    """

    def __init__(self, server: "Server") -> None:
        self.is_stalled = False
        self._server = server
        self._held: frozenset[Delivery] | None = None  # None: it is not full
        self._unburied = 0
        self._since = 0.0

    def look(self) -> None:
        """Look, about every second; on the loop."""
        now = self._server.timers.time()
        self._expire_overdue(now)
        self._look_for_progress(now)

    def _expire_overdue(self, now: float) -> None:
        """Free the places of sync handlers whose callers gave up.

        Their threads cannot be stopped.
        """
        for delivery in tuple(self._server.in_flight):
            deadline = delivery.context.deadline
            if deadline is not None and deadline < now:
                delivery.expire()

    def _look_for_progress(self, now: float) -> None:
        """See whether anything has ended since it was full."""
        in_flight, unburied = self._server.in_flight, self._server.unburied
        if not self._is_full():
            self._held, self.is_stalled = None, False
        elif (
            self._held is None
            or not self._held <= in_flight
            or unburied < self._unburied
        ):
            self._held, self._unburied = frozenset(in_flight), unburied
            self._since, self.is_stalled = now, False
        elif not self.is_stalled and now - self._since >= STALLED:
            self.is_stalled = True
            logger.error(
                "Server %r takes nothing new: of %d handlers none has ended for %g s, "
                "and %d places are held by dead letters that are refused.",
                self._server.name,
                len(in_flight),
                now - self._since,
                unburied,
            )

    def _is_full(self) -> bool:
        """Whether no place is left; the handlers of one event share theirs."""
        in_flight = self._server.in_flight
        places = self._server.config.concurrency - self._server.unburied
        if len(in_flight) < places:
            return False
        return len({id(one.message) for one in in_flight if one.takes_place}) >= places
