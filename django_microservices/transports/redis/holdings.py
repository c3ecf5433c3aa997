"""What one consumer of a group holds of its streams, and what becomes of it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from ...wire.text import shown
from ..redelivery import GIVEN_BACK, Receipt, Redelivery
from .connection import Connection
from .entries import bury
from .groups import Stream
from .protocol import ReplyError, command

logger = logging.getLogger(__name__)

LATER = 1.0
"""Seconds after which we ask again for what Redis refused."""

MOST_LATER = 60.0
"""Seconds at most between two tries to write the same dead letter."""

# What Lua says of an entry with some thousands of fields: its stack has no more room.
_TOO_MANY_FIELDS = "too many results to unpack"
_LONG_AGO = 1  # ms since 1970: whoever looks for what is left finds it at once


class Held(Receipt):
    """An entry that was delivered to us, for the ``deliveries``-th time."""

    __slots__ = (
        "_holdings",
        "deliveries",
        "fields",
        "id",
        "rest",
        "since",
        "stream",
        "timer",
    )

    def __init__(
        self,
        holdings: "Holdings",
        stream: Stream,
        id_: bytes,
        fields: Sequence[bytes],
        deliveries: int,
    ) -> None:
        super().__init__()
        self._holdings = holdings
        self.stream = stream
        self.id = id_
        self.fields = fields
        self.deliveries = deliveries
        self.rest = 0.0
        """Seconds for which its dead letter was put off last."""
        self.since = holdings.loop.time()
        self.timer: asyncio.TimerHandle | None = None

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, keep for another try, give back, or bury."""
        holdings = self._holdings
        if outcome == "ack":
            holdings.acknowledge(self)
        elif outcome == "dead":
            holdings.bury(self, reason)
        elif holdings.is_ending or reason == GIVEN_BACK:
            holdings.give_back(self)
        else:
            holdings.try_again(self, delay, reason)


Taken = Callable[[Stream, bytes, Sequence[bytes] | None, int], None]


class Holdings:
    """All entries that we hold, by stream and id.

    Redis keeps them as pending, ours as long as we say so. ``taken(stream, id, fields,
    deliveries)`` is called with those that are due again.
    """

    def __init__(
        self,
        hands: Connection,
        group: str,
        consumer: str,
        policy: Redelivery,
        taken: Taken,
    ) -> None:
        self.hands = hands
        self.loop = hands.loop
        self.group = group
        self.consumer = consumer
        self.policy = policy
        self.held: dict[tuple[bytes, bytes], Held] = {}
        self.is_ending = False
        self._resting = 0
        self._unburied: set[Held] = set()
        self._taken = taken
        self._acks: dict[bytes, list[bytes]] = {}

    def hold(
        self, stream: Stream, id_: bytes, fields: Sequence[bytes], deliveries: int
    ) -> Held | None:
        """Hold an entry; ``None`` for one that we hold already."""
        key = (stream.name, id_)
        if key in self.held:
            return None
        held = self.held[key] = Held(self, stream, id_, fields, deliveries)
        return held

    @property
    def resting(self) -> int:
        """How many rest before they are tried again, or have a letter to be written."""
        return self._resting + len(self._unburied)

    def _let_go(self, held: Held) -> None:
        self._unburied.discard(held)
        self.held.pop((held.stream.name, held.id), None)

    # --- what becomes of them ---

    def acknowledge(self, held: Held) -> None:
        """Tell Redis that it is done, together with what else this tick ends."""
        self._let_go(held)
        acks = self._acks
        if not acks:
            self.loop.call_soon(self.flush)
        acks.setdefault(held.stream.name, []).append(held.id)

    def flush(self) -> None:
        """Send the acknowledgements."""
        for name, ids in self._acks.items():
            self.hands.send(command("XACK", name, self.group, *ids))
        self._acks.clear()

    def bury(self, held: Held, reason: str) -> None:
        """Make it a dead letter, and acknowledge it with that."""
        logger.warning(
            "Entry %s of %s is a dead letter after %d deliveries: %s",
            held.id.decode(),
            shown(held.stream.pattern.route),
            held.deliveries,
            shown(reason),
        )
        self._write_letter(held, reason)

    def _write_letter(self, held: Held, reason: str) -> None:
        fields: list[bytes | str] = [*held.fields, "dm-reason", reason]
        fields += ["dm-group", self.group, "dm-id", held.id]
        fields += ["dm-deliveries", str(held.deliveries)]
        self._unburied.add(held)
        stream = held.stream
        text = bury(stream.name, stream.dead, self.group, held.id, fields)
        self.hands.send(text, partial(self._buried, held, reason))

    def _buried(self, held: Held, reason: str, answer: Any) -> None:
        """Let it go, or where Redis refuses (it is full) do it again later.

        Of an entry with too many fields the letter has only where it was, and why.
        """
        if not isinstance(answer, ReplyError):
            self._let_go(held)
            return
        logger.error("No dead letter: %s", shown(str(answer)))
        if _TOO_MANY_FIELDS in str(answer):
            held.fields = (b"dm-stream", held.stream.name)
            self._write_letter(held, reason)
            return
        rest = held.rest = min(2 * held.rest or LATER, MOST_LATER)
        held.timer = self.loop.call_later(rest, self._write_letter, held, reason)

    def give_back(self, held: Held) -> None:
        """Let any consumer claim it at once; this delivery does not count."""
        self._let_go(held)
        if held.timer is not None:
            held.timer.cancel()
        how = ("TIME", _LONG_AGO, "RETRYCOUNT", held.deliveries - 1, "JUSTID")
        self.hands.send(self._claim(held, *how))

    def try_again(self, held: Held, delay: float | None, reason: str) -> None:
        """Keep it until it is due again, or bury it after too many deliveries."""
        rest = self.policy.after(held.deliveries)
        if rest is None:
            self.bury(held, reason)
            return
        held.fields = ()  # Redis has them
        self._rest(held, rest if delay is None else delay)

    def _rest(self, held: Held, seconds: float) -> None:
        self._resting += 1
        held.timer = self.loop.call_later(seconds, self._due, held)

    def _due(self, held: Held) -> None:
        """Have Redis count one more delivery, and read the entry again."""
        self._resting -= 1
        self.hands.send(self._claim(held), partial(self._due_again, held))

    def _due_again(self, held: Held, entries: Any) -> None:
        if isinstance(entries, Exception):  # the group is gone, and made again
            self._rest(held, LATER)
            return
        self._let_go(held)
        for id_, fields in filter(None, entries):  # none if it was settled meanwhile
            self._taken(held.stream, id_, fields, held.deliveries + 1)

    def _claim(self, held: Held, *how: str | int) -> bytes:
        stream = held.stream.name
        return command("XCLAIM", stream, self.group, self.consumer, 0, held.id, *how)

    # --- keeping them ---

    def refresh(self, seconds: float) -> None:
        """Say of those that we hold for so long that we still do."""
        now = self.loop.time()
        old = [held for held in self.held.values() if now - held.since > seconds]
        for held in old:
            held.since = now
        self._say_ours(old)

    def enter(self) -> None:
        """Enter all of them into a group that was made anew."""
        self._say_ours(self.held.values(), "FORCE")

    def _say_ours(self, many: Iterable[Held], *how: str) -> None:
        for name, same in groupby(sorted(many, key=_stream), key=_stream):
            ids = [held.id for held in same]
            for some in (ids[at : at + 100] for at in range(0, len(ids), 100)):
                whose = (name, self.group, self.consumer, 0)
                self.hands.send(command("XCLAIM", *whose, *some, *how, "JUSTID"))

    def end(self) -> None:
        """Give everything back, now and from now on."""
        self.is_ending = True
        for held in [held for held in self.held.values() if held.timer is not None]:
            self.give_back(held)
        self._resting = 0


def _stream(held: Held) -> bytes:
    return held.stream.name
