"""The connection by which a server answers: opened anew where it alone is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ...exceptions import ConnectionLost, MicroserviceError
from .channel import Channel
from .connection import Connection
from .frames import publish
from .methods import Consume
from .names import DIRECT_REPLY_TO
from .protocol import Content

logger = logging.getLogger(__name__)

UNSENT = 16 * 1024 * 1024
"""Bytes of answers that wait for a broker that takes nothing; more are dropped."""
STEADY = 1.0
"""Seconds between two connections, at least."""
_MOST_KNOWN = 1024

Answer = tuple[bytes, bytes, bytes]
"""Whom to answer, the properties, and the text."""


class Publishing:
    """What a server publishes by.

    ``called_off`` gets the words of clients that want no more of a stream. ``torn`` is
    called in the moment in which a connection ends, ``moved`` when another one has what
    waited, ``lost`` with the reason when there is none. Answers are ``waiting``
    meanwhile, and none is lost that was not on its way.
    """

    def __init__(
        self,
        connection: Connection,
        connect: Callable[[], Awaitable[Connection]],
        called_off: Callable[[Content], None],
        torn: Callable[[], None],
        lost: Callable[[MicroserviceError], None],
    ) -> None:
        self.connection = connection
        self.dropped = 0
        self.waiting: list[Answer] = []
        self.moved: Callable[[Connection], None] = _unheard
        self._connect = connect
        self._called_off = called_off
        self._torn = torn
        self._lost = lost
        self._channel = Channel(connection)
        self._starts: dict[bytes, bytes] = {}
        self._size = 0
        self._opened = 0.0
        self._reopening: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Be ready to answer, and hear what is called off."""
        connection = self.connection
        connection.closed.add_done_callback(self._ended)
        self._channel = channel = Channel(connection)
        self._starts.clear()
        self._opened = connection.loop.time()
        channel.ended = self._channel_ended
        channel.delivered = self._called_off
        await channel.open()
        await channel.call(Consume(queue=DIRECT_REPLY_TO, no_ack=True))

    def _channel_ended(self, reason: MicroserviceError) -> None:
        if not self.connection.lost:
            self.connection.abort(ConnectionLost(str(reason)))
        self._torn()

    # --- out ---

    def reply(
        self, reply_to: bytes, properties: bytes, text: bytes
    ) -> "Awaitable[None] | None":
        """Publish an answer; an awaitable says that the broker takes nothing now."""
        connection = self.connection
        gate = connection.gate
        if connection.lost or self._reopening is not None:
            return self._keep(reply_to, properties, text)
        if not gate.is_open and connection.unsent > UNSENT:
            self._drop()
            return None
        self._send(reply_to, properties, text)
        return None if gate.is_open else gate.passed()

    def _send(self, reply_to: bytes, properties: bytes, text: bytes) -> None:
        channel = self._channel
        start = self._starts.get(reply_to)
        if start is None:
            if len(self._starts) >= _MOST_KNOWN:
                self._starts.clear()
            start = publish(channel.number, "", reply_to)
            self._starts[reply_to] = start
        channel.send(start, properties, text)

    def _keep(self, *answer: bytes) -> "Awaitable[None] | None":
        size = sum(map(len, answer))
        if self._is_closed or self._size + size > UNSENT:
            self._drop()
            return None
        self._size += size
        reply_to, properties, text = answer
        self.waiting.append((reply_to, properties, text))
        return None if self._reopening is None else asyncio.shield(self._reopening)

    def _drop(self) -> None:
        """Count an answer that goes nowhere; the first one is told of at once."""
        if not self.dropped:
            address = self.connection.address
            logger.warning("%s takes no answers: they are dropped.", address)
        self.dropped += 1

    # --- the end of a connection ---

    def _ended(self, closed: "asyncio.Future[MicroserviceError]") -> None:
        if self._is_closed:
            self._lost(closed.result())
        elif self._reopening is None:
            self._reopening = asyncio.ensure_future(self._reopen(closed.result()))

    async def _reopen(self, reason: MicroserviceError) -> None:
        """Connect once more; whoever serves tries again later if that fails."""
        await asyncio.sleep(self._opened + STEADY - self.connection.loop.time())
        before = self.connection
        try:
            self.connection = await self._connect()
            await self.open()
        except MicroserviceError:
            self._lost(reason)
            return
        before.unblock()  # a broker that is still short of something says so again
        self._reopening = None
        answers, self.waiting, self._size = self.waiting, [], 0
        for answer in answers:
            self._send(*answer)
        self.moved(self.connection)

    async def close(self) -> None:
        """Close; nothing is opened any more, and what still waits is lost."""
        self._is_closed = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait((self._reopening,))
        count = self.dropped + len(self.waiting)
        if count:
            address = self.connection.address
            logger.warning("%s answers did not reach %s.", count, address)
        await self.connection.close()


def _unheard(_: Connection) -> None:
    """Tell nobody."""
