"""What one consumer of a group holds of its streams, and what becomes of it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...wire.text import shown
from ..redelivery import GIVEN_BACK, Receipt, Redelivery
from .connection import Connection
from .entries import bury
from .groups import Groups, Stream
from .protocol import ReplyError, command

if TYPE_CHECKING:
    from .streams import RedisStreamsTransport

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
        "deliveries",
        "due_at",
        "fields",
        "holdings",
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
        self.holdings = holdings
        self.stream = stream
        self.id = id_
        self.fields = fields
        self.deliveries = deliveries
        self.rest = 0.0
        """Seconds for which its dead letter was put off last."""
        self.since = holdings.loop.time()
        self.due_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, keep for another try, give back, or bury.

        Without a connection only that it is done is still told to the next one.
        """
        holdings = self.holdings
        if outcome == "ack":
            holdings.acknowledge(self)
        elif holdings.hands.lost:
            holdings.let_go(self)
        elif outcome == "dead":
            holdings.bury(self, reason)
        elif reason == GIVEN_BACK:
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
        groups: Groups,
        options: "RedisStreamsTransport",
        taken: Taken,
    ) -> None:
        self.hands = hands
        self.loop = hands.loop
        self.groups = groups
        self.claim_after = options.claim_after
        self.policy = Redelivery(options.max_deliveries, options.redelivery_delay)
        self.held: dict[tuple[bytes, bytes], Held] = {}
        self.is_ending = False
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

    def adopt(self, left: "Holdings") -> None:
        """Hold what handlers still worked on when the last connection was lost."""
        self.held = left.held
        for held in self.held.values():
            held.holdings = self

    def go_on(self) -> None:
        """Say of those, once there are groups, that they are done, or ours."""
        for held in tuple(self.held.values()):
            held.stream = self.groups.streams[held.stream.name]
            if held.is_settled:
                self.acknowledge(held)
        self._say_ours(self.held.values())

    def let_go(self, held: Held) -> None:
        """Hold it no more: it may be claimed, if Redis has it still."""
        held.stream.resting.discard(held)
        self.held.pop((held.stream.name, held.id), None)

    # --- what becomes of them ---

    def acknowledge(self, held: Held) -> None:
        """Tell Redis that it is done, together with what else this tick ends."""
        if self.hands.lost:
            return
        self.let_go(held)
        acks = self._acks
        if not acks:
            self.loop.call_soon(self.flush)
        acks.setdefault(held.stream.name, []).append(held.id)

    def flush(self) -> None:
        """Send the acknowledgements."""
        for name, ids in self._acks.items():
            self.hands.send(command("XACK", name, self.groups.name, *ids))
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
        fields += ["dm-group", self.groups.name, "dm-id", held.id]
        fields += ["dm-deliveries", str(held.deliveries)]
        held.timer = None
        stream = held.stream
        stream.rest(held)
        text = bury(stream.name, stream.dead, self.groups.name, held.id, fields)
        self.hands.send(text, partial(self._buried, held, reason))

    def _buried(self, held: Held, reason: str, answer: Any) -> None:
        """Let it go, or where Redis refuses (it is full) do it again later.

        Of an entry with too many fields the letter has only where it was, and why.
        """
        if not isinstance(answer, ReplyError):
            self.let_go(held)
            return
        logger.error("No dead letter: %s", shown(str(answer)))
        if _TOO_MANY_FIELDS in str(answer):
            held.fields = (b"dm-stream", held.stream.name)
            self._write_letter(held, reason)
            return
        rest = held.rest = min(2 * held.rest or LATER, MOST_LATER)
        self._rest(held, rest, partial(self._write_letter, held, reason))

    def give_back(self, held: Held) -> None:
        """Let any consumer claim it at once; this delivery does not count."""
        self.let_go(held)
        how = ("TIME", _LONG_AGO, "RETRYCOUNT", held.deliveries - 1, "JUSTID")
        self.hands.send(self._claim(held, *how))

    def try_again(self, held: Held, delay: float | None, reason: str) -> None:
        """Keep it until it is due again, or bury it after too many deliveries."""
        rest = self.policy.after(held.deliveries)
        if rest is None:
            self.bury(held, reason)
            return
        held.fields = ()  # Redis has them
        rest = rest if delay is None else delay
        self._rest(held, rest, partial(self._due, held))

    def _rest(self, held: Held, seconds: float, then: Callable[[], None]) -> None:
        """Keep it for so long, or at the end have others do so."""
        held.due_at = self.loop.time() + seconds
        held.timer = self.loop.call_later(seconds, then)
        held.stream.rest(held)
        if self.is_ending:
            self._hand_on(held, held.timer)

    def _hand_on(self, held: Held, timer: asyncio.TimerHandle) -> None:
        """Let any consumer claim it when its rest is over; this delivery counts.

        Entries can be claimed once they were idle for ``claim_after``: a longer rest
        ends then.
        """
        self.let_go(held)
        timer.cancel()
        rest = max(0.0, held.due_at - self.loop.time())
        idle = max(0.0, self.claim_after - rest)
        how = ("IDLE", int(idle * 1000), "RETRYCOUNT", held.deliveries, "JUSTID")
        self.hands.send(self._claim(held, *how))

    def _due(self, held: Held) -> None:
        """Have Redis count one more delivery, and read the entry again."""
        held.timer = None
        held.stream.resting.discard(held)
        self.hands.send(self._claim(held), partial(self._due_again, held))

    def _due_again(self, held: Held, entries: Any) -> None:
        if isinstance(entries, Exception):  # the group is gone, and made again
            self._rest(held, LATER, partial(self._due, held))
            return
        self.let_go(held)
        if not any(entries):
            logger.warning(
                "Entry %s of %s, which had failed, is gone before it was tried again: "
                "the stream was cut (max_length), or somebody else has settled it.",
                held.id.decode(),
                shown(held.stream.pattern.route),
            )
        for id_, fields in filter(None, entries):
            self._taken(held.stream, id_, fields, held.deliveries + 1)

    def _claim(self, held: Held, *how: str | int) -> bytes:
        groups = self.groups
        whose = (held.stream.name, groups.name, groups.consumer, 0)
        return command("XCLAIM", *whose, held.id, *how)

    # --- keeping them ---

    def refresh(self) -> None:
        """Say again of those that we hold for long that we still do."""
        now, most = self.loop.time(), self.claim_after / 3
        old = [held for held in self.held.values() if now - held.since > most]
        for held in old:
            held.since = now
        self._say_ours(old)

    def enter(self) -> None:
        """Enter all of them into a group that was made anew."""
        self._say_ours(self.held.values(), "FORCE")

    def _say_ours(self, many: Iterable[Held], *how: str) -> None:
        many = [held for held in many if not held.stream.is_foreign]
        for name, same in groupby(sorted(many, key=_stream), key=_stream):
            ids = [held.id for held in same]
            for some in (ids[at : at + 100] for at in range(0, len(ids), 100)):
                whose = (name, self.groups.name, self.groups.consumer, 0)
                self.hands.send(command("XCLAIM", *whose, *some, *how, "JUSTID"))

    def end(self) -> None:
        """Let nothing rest with us, now and from now on; what runs stays ours."""
        self.is_ending = True
        for held in tuple(self.held.values()):
            if held.timer is not None:
                self._hand_on(held, held.timer)


def _stream(held: Held) -> bytes:
    return held.stream.name
