"""A consumer group in the streams that a server reads: made, and tidied."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from ...wire.patterns import Pattern
from .connection import Connection
from .entries import forget_consumers
from .protocol import ReplyError, target_of

if TYPE_CHECKING:
    from .streams import RedisStreamsTransport

GONE = 60.0
"""Seconds without a read after which a consumer is forgotten; one that lives reads all
the time, and its next read makes it known again."""

_NEWEST = b"last-generated-id"
_BEGINNING = b"0-0"


class Stream:
    """A stream that is read: ``last`` is the newest entry that came from it."""

    __slots__ = ("dead", "last", "name", "pattern")

    def __init__(self, name: bytes, pattern: Pattern, start: bytes) -> None:
        self.name = name
        self.pattern = pattern
        self.dead = name + b".dead"
        self.last = start


class Groups:
    """One group by ``name``, in each of ``streams``."""

    def __init__(self, options: "RedisStreamsTransport", hands: Connection) -> None:
        self.name = options.group or ""
        self.streams: dict[bytes, Stream] = {}
        self._options = options
        self._hands = hands

    @staticmethod
    def names(
        subscriptions: Iterable[Subscription], prefix: str
    ) -> dict[bytes, Pattern]:
        """Return the streams that are to be read; refuse what can name none."""
        try:
            return {
                prefix.encode() + target_of(s.pattern.route): s.pattern
                for s in subscriptions
            }
        except ValueError as error:
            message = f"Redis Streams cannot serve this: {error}"
            raise TransportRefused(message) from None

    async def begin(self, names: dict[bytes, Pattern]) -> None:
        """Have the group begin in each stream, or go on."""
        for name, pattern in names.items():
            start = await self._start(name)
            self.streams[name] = Stream(name, pattern, start)
        await self.make()

    async def _start(self, name: bytes) -> bytes:
        """Return the entry behind which a new group begins."""
        if self._options.from_beginning:
            return _BEGINNING
        try:
            facts = await self._hands.ask("XINFO", "STREAM", name)
        except ReplyError:  # there is no such stream yet
            return _BEGINNING
        newest: bytes = dict(zip(facts[::2], facts[1::2], strict=True))[_NEWEST]
        return newest

    async def make(self) -> Sequence[Stream]:
        """Make the group where there is none; return the streams where that was.

        It goes on behind what was read last, so that nothing is handled a second time.
        """
        made = []
        for stream in self.streams.values():
            where = (stream.name, self.name, stream.last)
            try:
                await self._hands.ask("XGROUP", "CREATE", *where, "MKSTREAM")
            except ReplyError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            else:
                made.append(stream)
        return made

    def forget_consumers(self, left: str = "") -> None:
        """Have Redis forget the consumers that are gone, and the one that ``left``."""
        for name in self.streams:
            self._hands.send(forget_consumers(name, self.name, left, GONE))
