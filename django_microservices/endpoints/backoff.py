"""How long to wait before trying again: full jitter, for ever."""

import random

BASE = 0.05
CLIENT_CAP = 5.0
SERVER_CAP = 0.4
STEADY = 1.0
"""A connection that held this many seconds was a good one. Less, and a server that
accepts and hangs up would be tried without a pause."""


class Backoff:
    """Waits of ``random(0, min(cap, base * 2 ** tries))`` seconds.

    AWS's "full jitter": the fewest calls in total of the simple schemes.
    """

    def __init__(self, cap: float, base: float = BASE) -> None:
        self.cap = cap
        self.base = base
        self.tries = 0

    def held(self, seconds: float) -> None:
        """Begin again with the shortest wait, if what was tried held long enough."""
        if seconds > STEADY:
            self.tries = 0

    def next(self) -> float:
        """Return the next wait in seconds."""
        most = min(self.cap, self.base * 2 ** min(self.tries, 30))
        self.tries += 1
        return random.uniform(0, most)  # noqa: S311 - jitter is no secret
