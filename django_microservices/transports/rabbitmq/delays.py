"""Queues in which messages rest, and the one of dead letters.

A message in a queue of delays expires, and the broker's own dead letters bring it on.
Delays are rounded up to few levels, because the messages of a queue expire in their
order; what is not used any more goes by itself.
"""

from collections.abc import Mapping

from pamqp import base
from pamqp.common import FieldTable

from .channel import Channel
from .connection import Connection
from .errors import NOT_FOUND, BrokerClosed
from .methods import BindQueue, DeclareExchange, DeclareQueue
from .names import beside
from .topology import DEAD_LETTER_EXCHANGE, FANOUT, PREDECLARED, milliseconds

LEVELS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)
"""Seconds."""
LONGEST_DELAY = LEVELS[-1]
FRESH = 60.0
"""Seconds for which what was declared is not declared again."""
_KEPT = 2 * FRESH


class Delays:
    """The resting places of messages; what one connection knows to be declared."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._declared: dict[str, float] = {}

    async def queue_for(self, queue: str, seconds: float) -> str:
        """Return the queue from which a message comes back into ``queue`` later."""
        level = _level(seconds)
        end = f".retry.{milliseconds(level)}"
        name = beside(queue.removeprefix(PREDECLARED), end)  # the broker's own names
        to = {DEAD_LETTER_EXCHANGE: "", "x-dead-letter-routing-key": queue}
        await self._declare(name, _resting(name, level, to))
        return name

    def forget(self) -> None:
        """Declare all anew: something of it may be gone."""
        self._declared.clear()

    async def exchange_for(self, exchange: str, seconds: float) -> str:
        """Return the exchange by which a message comes to another one later.

        Its queue names no routing key, so that each message keeps its own. The empty
        exchange, of which all queues get something by their names, has its own place.
        """
        level = _level(seconds)
        name = beside(exchange, "", f"delay.{milliseconds(level)}.")
        await self._declare(
            name,
            DeclareExchange(
                exchange=name, exchange_type=FANOUT, durable=True, auto_delete=True
            ),
            _resting(name, level, {DEAD_LETTER_EXCHANGE: exchange}),
            BindQueue(queue=name, exchange=name),
        )
        return name

    async def _declare(self, name: str, *questions: base.Frame) -> None:
        now = self.connection.loop.time()
        if now - self._declared.get(name, -FRESH) >= FRESH:
            await _ask(self.connection, *questions)
            self._declared[name] = now


def _level(seconds: float) -> float:
    return next((level for level in LEVELS if level >= seconds), LONGEST_DELAY)


def _resting(name: str, level: float, to: Mapping[str, str]) -> DeclareQueue:
    """Declare a queue of delays.

    Its declaration counts as use, and keeps it for longer than a message rests in it.
    """
    arguments: FieldTable = {
        "x-message-ttl": milliseconds(level),
        "x-expires": milliseconds(level + _KEPT),
        **to,
    }
    return DeclareQueue(queue=name, durable=True, arguments=arguments)


async def declare_dead_letters(connection: Connection, queue: str) -> None:
    """Have the queue of dead letters; one that exists may be of any kind."""
    try:
        await _ask(connection, DeclareQueue(queue=queue, passive=True))
    except BrokerClosed as missing:
        if missing.code != NOT_FOUND:
            raise
        await _ask(connection, DeclareQueue(queue=queue, durable=True))


async def _ask(connection: Connection, *questions: base.Frame) -> None:
    """Declare on a channel of its own: a refusal closes it."""
    channel = Channel(connection)
    await channel.open()
    for question in questions:
        await channel.call(question)
    await channel.close()
