"""A consumer group in the streams that a server reads: made, and tidied."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from ...wire.patterns import Pattern
from ...wire.text import shown
from .connection import Connection
from .entries import forget_consumers
from .protocol import ReplyError, target_of
from .refusals import is_foreign

if TYPE_CHECKING:
    from .streams import RedisStreamsTransport

logger = logging.getLogger(__name__)

GONE = 60.0
"""Seconds without a read after which a consumer is forgotten; one that lives reads all
the time, and its next read makes it known again."""
MOST_RESTING = 10_000
"""Entries of one stream that rest before another try, at which no more are read."""

_NEWEST = b"last-generated-id"
_BEGINNING = b"0-0"


class Stream:
    """A stream that is read: ``last`` is the newest entry that came from it.

    ``resting`` are those that rest before another try, or have a letter to be written.
    ``is_foreign`` says that its key is something else meanwhile.
    """

    __slots__ = (
        "_is_told",
        "dead",
        "is_foreign",
        "last",
        "name",
        "pattern",
        "resting",
    )

    def __init__(self, name: bytes, pattern: Pattern, start: bytes) -> None:
        self.name = name
        self.pattern = pattern
        self.dead = name + b".dead"
        self.last = start
        self.resting: set[Any] = set()
        self.is_foreign = False
        self._is_told = False

    def rest(self, held: Any) -> None:
        """Count one more that rests; say it, once, if these are too many."""
        self.resting.add(held)
        if len(self.resting) >= MOST_RESTING and not self._is_told:
            self._is_told = True
            logger.warning(
                "%d entries of %s rest before another try: no more are read from it "
                "until some are done. Handle or refuse them sooner, or have room for "
                "its dead letters.",
                len(self.resting),
                shown(self.pattern.route),
            )

    def replaced(self) -> None:
        """Read it no more: its key is something else."""
        if not self.is_foreign:
            self.is_foreign = True
            name = shown(self.name.decode())
            logger.error("%s is no stream any more: remove that key.", name)

    @property
    def is_read(self) -> bool:
        """Whether entries of it are wanted."""
        return not self.is_foreign and len(self.resting) < MOST_RESTING


class Groups:
    """One group by ``name``, in each of ``streams``; ``consumer`` is us in it."""

    def __init__(self, options: "RedisStreamsTransport", hands: Connection) -> None:
        self.name = options.group or ""
        self.consumer = options.new_consumer()
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
            stream = Stream(name, pattern, await self._start(name))
            await self._make(stream)
            self.streams[name] = stream

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

    async def mend(self) -> None:
        """Make the group where there is none.

        It goes on behind what was read last, so that nothing is handled a second time.
        A stream in whose place is something else is let be until that is gone.
        """
        for stream in self.streams.values():
            try:
                await self._make(stream)
            except ReplyError as error:
                if not is_foreign(error):
                    raise
                stream.replaced()

    async def _make(self, stream: Stream) -> None:
        """Make the group in one stream, if there is none; say so if there was one."""
        where = (stream.name, self.name, stream.last)
        try:
            await self._hands.ask("XGROUP", "CREATE", *where, "MKSTREAM")
        except ReplyError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        else:
            if stream.name in self.streams:
                logger.warning(
                    "Group %s of stream %s was gone: it is made anew behind %s.",
                    shown(self.name),
                    shown(stream.name.decode()),
                    stream.last.decode(),
                )
        stream.is_foreign = False

    def forget_consumers(self, left: str = "") -> None:
        """Have Redis forget the consumers that are gone, and the one that ``left``."""
        for stream in self.streams.values():
            if not stream.is_foreign:
                text = forget_consumers(stream.name, self.name, left, GONE)
                self._hands.send(text)
