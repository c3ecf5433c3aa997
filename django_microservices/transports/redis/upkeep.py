"""What each consumer of a group does now and then, for all of them."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost
from ...wire.text import shown
from .groups import Stream
from .protocol import ReplyError

if TYPE_CHECKING:
    from .streams_intake import StreamsIntake

logger = logging.getLogger(__name__)

SWEEP = 0.5
"""Seconds between two looks for what dead consumers left."""
TIDY = 10.0
"""Seconds between two looks for entries and consumers that nobody needs."""


class Upkeep:
    """Claims what was left, keeps what is held, removes what is done."""

    def __init__(self, intake: "StreamsIntake") -> None:
        self._intake = intake
        self._groups = intake.groups
        self._ask = intake.hands.ask
        self._claim_after = intake.options.claim_after
        self._cursors: dict[bytes, bytes] = {}

    async def run(self) -> None:
        """Do it until the connection is lost."""
        loop = asyncio.get_running_loop()
        tidy_at = loop.time() + TIDY
        pause = min(SWEEP, self._claim_after / 3)
        while True:
            self._intake.holdings.refresh(self._claim_after / 3)
            self._intake.want()  # there is room again once letters could be written
            try:
                for stream in self._groups.streams.values():
                    await self._claim(stream)
                if loop.time() > tidy_at:
                    tidy_at = loop.time() + TIDY
                    await self._tidy()
            except ReplyError as error:
                self._intake.failed(error)
            except ConnectionLost:
                return
            await asyncio.sleep(pause)

    async def _claim(self, stream: Stream) -> None:
        """Take over, as far as there is room, what nobody has cared for so long."""
        room = self._intake.free
        if room <= 0:
            return
        name, consumer = stream.name, self._intake.consumer
        cursor, entries, *_ = await self._ask(
            "XAUTOCLAIM",
            *(name, self._groups.name, consumer, int(self._claim_after * 1000)),
            *(self._cursors.get(name, b"0-0"), "COUNT", room),
        )
        self._cursors[name] = cursor
        entries = [entry for entry in entries if entry]  # Redis 6.2 has holes here
        if not entries:
            return
        logger.info("Claimed %d entries of %s.", len(entries), shown(name.decode()))
        bounds = entries[0][0], entries[-1][0]
        most = len(self._intake.holdings.held) + len(entries)
        pending = await self._ask(
            "XPENDING", name, self._groups.name, *bounds, most, consumer
        )
        deliveries = {id_: count for id_, _, _, count in pending}
        for id_, fields in entries:
            self._intake.take(stream, id_, fields, deliveries.get(id_, 1))

    # --- what nobody needs any more ---

    async def _tidy(self) -> None:
        self._groups.forget_consumers()
        if not self._intake.options.keep_acknowledged:
            for name in self._groups.streams:
                await self._trim(name)

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
