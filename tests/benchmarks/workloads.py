"""What is sent, the same for every candidate.

``sum`` adds three numbers. ``echo`` gives a list of small objects back: each end reads
and writes all of it. The event is counted by its handler.
"""

import json
from dataclasses import dataclass
from typing import Any

SUM, ECHO, CREATED = {"cmd": "sum"}, {"cmd": "echo"}, "created"
ROW = {"id": 1234, "name": "Ada Lovelace", "tags": ["new", "vip"], "total": 99.5}
KILOBYTE = [ROW | {"id": number} for number in range(1000, 1015)]
HUNDRED_KILOBYTES = [ROW | {"id": number} for number in range(1000, 2470)]


@dataclass(frozen=True, eq=False)
class Workload:
    """One thing to repeat: how, what, and with how many in flight.

    Events are emitted in bursts of ``concurrency``; they are measured until the server
    has counted the last one.
    """

    name: str
    op: str  # "requests" or "events"
    pattern: Any
    data: Any
    concurrency: int
    answer: Any = None

    def command(self, seconds: float) -> dict[str, Any]:
        """Say it to a client process."""
        fields = ("op", "pattern", "data", "concurrency", "answer")
        return {name: getattr(self, name) for name in fields} | {"seconds": seconds}

    def __str__(self) -> str:
        size = len(json.dumps(self.data, separators=(",", ":")))
        if self.op == "events":
            return f"{self.name}: events of {size:,} B, in bursts of {self.concurrency}"
        return f"{self.name}: requests of {size:,} B, {self.concurrency} in flight"


def _sums(name: str, concurrency: int) -> Workload:
    return Workload(name, "requests", SUM, [1, 2, 3], concurrency, 6)


def _echoes(name: str, rows: Any, concurrency: int) -> Workload:
    return Workload(name, "requests", ECHO, rows, concurrency, rows)


ASYNC = (
    _sums("small-1", 1),
    _sums("small-100", 100),
    _echoes("1KB-1", KILOBYTE, 1),
    _echoes("1KB-100", KILOBYTE, 100),
    _echoes("100KB-1", HUNDRED_KILOBYTES, 1),
    _echoes("100KB-100", HUNDRED_KILOBYTES, 100),
    Workload("events-small", "events", CREATED, {"id": 1}, 100),
    Workload("events-1KB", "events", CREATED, KILOBYTE, 100),
)
SMALL = ASYNC[:2]
EVENTS = ASYNC[6:7]
BROKERED = SMALL + EVENTS
SYNC = (_sums("sync", 1),)
WORKLOADS = ASYNC + SYNC
