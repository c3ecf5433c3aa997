"""Finds requests whose callers are gone, so that nothing works on for nobody.

A queue of replies ends with its client. Whether it is still there tells its declaration
on a channel that a refusal closes; the mandatory flag does not, since the broker
returns every answer to ``amq.rabbitmq.reply-to`` that has it (3.10, tried).
Source: https://www.rabbitmq.com/docs/direct-reply-to.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...exceptions import MicroserviceError
from .channel import Channel
from .connection import Connection
from .errors import NOT_FOUND, BrokerClosed
from .methods import DeclareQueue

if TYPE_CHECKING:
    from .arrivals import Arrival

PAUSE = 5.0
"""Seconds between two looks at what takes long."""


async def watch_callers(connection: Connection, arrivals: "set[Arrival]") -> None:
    """Cancel what runs for callers that are gone, until cancelled itself."""
    before: set[Arrival] = set()
    while True:
        await asyncio.sleep(PAUSE)
        lasting = before & arrivals
        before = {arrival for arrival in arrivals if arrival.reply_to is not None}
        await cancel_abandoned(connection, lasting)


async def cancel_abandoned(
    connection: Connection, arrivals: "Iterable[Arrival]"
) -> None:
    """Ask for each queue of replies once, and cancel what nobody awaits any more."""
    waiting: dict[bytes, list[Arrival]] = {}
    for arrival in arrivals:
        assert arrival.reply_to is not None
        waiting.setdefault(arrival.reply_to, []).append(arrival)
    for reply_to, asked in waiting.items():
        if connection.gate.is_open and not await _exists(connection, reply_to):
            for arrival in asked:
                arrival.delivery.cancel()


async def _exists(connection: Connection, reply_to: bytes) -> bool:
    channel = Channel(connection)
    question = DeclareQueue(queue=reply_to.decode(errors="replace"), passive=True)
    try:
        await channel.open()
        await channel.call(question)
        await channel.close()
    except BrokerClosed as refusal:
        return refusal.code != NOT_FOUND  # another client's own queue is locked
    except MicroserviceError:
        return True  # the connection went: nothing is known
    return True
