"""Where publishers wait while the broker takes nothing."""

import asyncio

from ...exceptions import MicroserviceError
from .errors import copied


class Gate:
    """Open unless something shuts it: an alarm of the broker, a socket that is full."""

    __slots__ = ("_obstacles", "_waiting", "is_open", "lost")

    def __init__(self) -> None:
        self.is_open = True
        self.lost: MicroserviceError | None = None
        self._obstacles: set[str] = set()
        self._waiting: asyncio.Future[None] | None = None

    def shut(self, obstacle: str) -> None:
        """Have publishers wait until the obstacle is gone."""
        self._obstacles.add(obstacle)
        self.is_open = False

    def open(self, obstacle: str) -> bool:
        """Let publishers through, unless something else is in their way.

        Returns whether the obstacle was there.
        """
        was_there = obstacle in self._obstacles
        self._obstacles.discard(obstacle)
        if not self._obstacles and self.lost is None:
            self.is_open = True
            self._wake()
        return was_there

    def lose(self, reason: MicroserviceError) -> None:
        """Let nobody through any more; who waits gets the reason."""
        self.is_open = False
        self.lost = reason
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set_result(None)
            self._waiting = None

    async def passed(self) -> None:
        """Return when it is open; raise the reason if it never will be."""
        while not self.is_open:
            if self.lost is not None:
                raise copied(self.lost)
            if self._waiting is None:
                self._waiting = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiting)
