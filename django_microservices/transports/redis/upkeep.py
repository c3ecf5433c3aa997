"""What each consumer of a group does now and then, for all of them."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost
from ...wire.text import shown
from .connection import LINGER
from .groups import Stream
from .protocol import ReplyError

if TYPE_CHECKING:
    from .streams_intake import StreamsIntake

logger = logging.getLogger(__name__)

SWEEP = 0.5
"""Seconds between two looks for what dead consumers left."""
TIDY = 10.0
"""Seconds between two looks for entries and consumers that nobody needs."""
SHARE = 10
"""Where there is never room, what the dead left gets places beside the limit: of each
stream one for so many that the limit has, and at least one."""


class Upkeep:
    """Keeps what is held, claims what was left, removes what is done."""

    def __init__(self, intake: "StreamsIntake") -> None:
        self._intake = intake
        self._groups = intake.groups
        self._ask = intake.hands.ask
        self._claim_after = intake.options.claim_after
        self._cursors: dict[bytes, bytes] = {}
        self._claimed: dict[bytes, list[bytes]] = {}
        self._tidy_at = intake.lines.loop.time() + TIDY
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Do it from now on, in a task."""
        self._task = self._intake.lines.loop.create_task(self.run())

    async def end(self) -> None:
        """Return when what was just claimed has come, or Redis is mute."""
        self._is_over.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=LINGER)
            self._task.cancel()

    async def run(self) -> None:
        """Do it until the end, or until the connection is lost.

        A server that drains claims no more, and keeps what it still works on.
        """
        pause = min(SWEEP, self._claim_after / 3)
        while not self._is_over.is_set():
            self._intake.holdings.refresh()
            self._intake.reader.want()  # letters may have been written, and made room
            try:
                await self._look()
            except ReplyError as error:
                self._intake.failed(error)
            except ConnectionLost:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_over.wait()

    async def _look(self) -> None:
        if any(stream.is_foreign for stream in self._groups.streams.values()):
            self._intake.mend()
        for stream in self._groups.streams.values():
            await self._claim(stream)
        if self._intake.lines.loop.time() > self._tidy_at:
            self._tidy_at = self._intake.lines.loop.time() + TIDY
            await self._tidy()

    # --- what others left ---

    async def _claim(self, stream: Stream) -> None:
        """Take over what nobody has cared for so long."""
        most = self._room(stream)
        if not most:
            return
        name, groups = stream.name, self._groups
        cursor, entries, *_ = await self._ask(
            "XAUTOCLAIM",
            *(name, groups.name, groups.consumer, int(self._claim_after * 1000)),
            *(self._cursors.get(name, b"0-0"), "COUNT", most),
        )
        self._cursors[name] = cursor
        entries = [entry for entry in entries if entry]  # Redis 6.2 has holes here
        if not entries:
            return
        logger.info("Claimed %d entries of %s.", len(entries), shown(name.decode()))
        bounds = entries[0][0], entries[-1][0]
        held = self._intake.holdings.held
        pending = await self._ask(
            *("XPENDING", name, groups.name, *bounds),
            *(len(held) + len(entries), groups.consumer),
        )
        deliveries = {id_: count for id_, _, _, count in pending}
        for id_, fields in entries:
            self._intake.take(stream, id_, fields, deliveries.get(id_, 1))
        self._claimed[name] = [id_ for id_, _ in entries]

    def _room(self, stream: Stream) -> int:
        """Return how many may be claimed.

        A backlog takes each place that comes free, so that claims have a few of their
        own: again when all that was claimed last is done.
        """
        intake = self._intake
        if intake.holdings.is_ending or not stream.is_read:
            return 0
        if intake.free > 0:
            return intake.free
        held = intake.holdings.held
        for id_ in self._claimed.get(stream.name, ()):
            one = held.get((stream.name, id_))
            if one is not None and not one.is_settled:
                return 0
        return max(1, intake.room.limit // SHARE)

    # --- what nobody needs any more ---

    async def _tidy(self) -> None:
        self._groups.forget_consumers()
        if not self._intake.options.keep_acknowledged:
            for stream in self._groups.streams.values():
                if not stream.is_foreign:
                    await self._trim(stream.name)

    async def _trim(self, name: bytes) -> None:
        """Remove the entries that every group has acknowledged."""
        needed = [
            await self._first_needed(name, facts)
            for facts in await self._ask("XINFO", "GROUPS", name)
        ]
        first = b"%d-%d" % min(needed, default=(0, 0))
        await self._ask("XTRIM", name, "MINID", "~", first)

    async def _first_needed(self, name: bytes, facts: list[Any]) -> tuple[int, ...]:
        group = dict(zip(facts[::2], facts[1::2], strict=True))
        _, first, _, _ = await self._ask("XPENDING", name, group[b"name"])
        text: bytes = first or group[b"last-delivered-id"]
        return tuple(map(int, text.split(b"-")))
