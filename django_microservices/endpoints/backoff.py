"""How long to wait before trying again: full jitter, for ever."""

import random

BASE = 0.05
CLIENT_CAP = 5.0
SERVER_CAP = 0.4


class Backoff:
    """Waits of ``random(0, min(cap, base * 2 ** tries))`` seconds.

    AWS's "full jitter": the fewest calls in total of the simple schemes.
    """

    def __init__(self, cap: float, base: float = BASE) -> None:
        self.cap = cap
        self.base = base
        self.tries = 0

    def reset(self) -> None:
        """It worked: begin again with the shortest wait."""
        self.tries = 0

    def next(self) -> float:
        """Return the next wait in seconds."""
        most = min(self.cap, self.base * 2 ** min(self.tries, 30))
        self.tries += 1
        return random.uniform(0, most)  # noqa: S311 - jitter is no secret
