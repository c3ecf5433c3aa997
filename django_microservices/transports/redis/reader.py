"""Reading what is new in the streams of a server."""

import asyncio
from typing import TYPE_CHECKING, Any

from .connection import Connection
from .protocol import ReplyError, command

if TYPE_CHECKING:
    from .streams_intake import StreamsIntake

BLOCK = 2.0
"""Seconds that a read waits for entries: it also tells that Redis lives."""
UNBLOCK = 0.05
"""Seconds after which a read that waits is ended once more."""
FEWEST = 8
"""Entries of each stream that a read asks for, where there is room for so many."""


class Reader:
    """Reads as much as there is room for, on a connection of its own: a read waits."""

    def __init__(self, intake: "StreamsIntake", line: Connection) -> None:
        self._intake = intake
        self._groups = intake.groups
        self._line = line
        self._id = 0
        self._reading: asyncio.Future[Any] | None = None
        self._is_reading = False
        self._is_scheduled = False

    async def open(self) -> None:
        """Ask who it is for Redis."""
        self._id = await self._line.ask("CLIENT", "ID")

    def want(self) -> None:
        """Read on, once this tick has made all the room that it makes."""
        if not (self._is_scheduled or self._is_reading):
            self._is_scheduled = True
            self._line.loop.call_soon(self._read)

    def _read(self) -> None:
        self._is_scheduled = False
        groups, free = self._groups, self._intake.free
        if free <= 0 or self._line.lost:
            return
        names = [stream.name for stream in groups.streams.values() if stream.is_read]
        if not names:
            return
        self._is_reading = True
        most = max(free // len(names), min(free, FEWEST))
        self._reading = self._line.ask(
            *("XREADGROUP", "GROUP", groups.name, groups.consumer),
            *("COUNT", most, "BLOCK", int(BLOCK * 1000)),
            *("STREAMS", *names, *">" * len(names)),
        )
        self._reading.add_done_callback(self._came)

    def _came(self, reading: asyncio.Future[Any]) -> None:
        """Take what was read, if anything came in time."""
        self._is_reading = False
        error = reading.exception()
        if isinstance(error, ReplyError):
            self._intake.failed(error)
        if error is not None:
            return
        for name, entries in reading.result() or ():
            stream = self._groups.streams[name]
            stream.last = entries[-1][0]
            for id_, fields in entries:
                self._intake.take(stream, id_, fields, 1)
        self.want()

    async def end(self) -> None:
        """Return when nothing is read any more; there must be no room for more."""
        unblock = command("CLIENT", "UNBLOCK", self._id)
        while self._reading is not None and not self._reading.done():
            self._intake.hands.send(unblock)  # the read may be on its way still
            await asyncio.wait((self._reading,), timeout=UNBLOCK)
