"""Finds requests whose callers are gone, so that nothing works on for nobody.

A queue of replies ends with its client. Whether it is still there tells its declaration
on a channel that a refusal closes; the mandatory flag does not, since the broker
returns every answer to ``amq.rabbitmq.reply-to`` that has it (3.10, tried).
Source: https://www.rabbitmq.com/docs/direct-reply-to.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...exceptions import MicroserviceError
from .channel import Channel
from .connection import Connection
from .errors import NOT_FOUND, BrokerClosed
from .methods import DeclareQueue

if TYPE_CHECKING:
    from .arrivals import Arrival
    from .publishing import Publishing

PAUSE = 5.0
"""Seconds between two looks at what takes long."""


async def watch_callers(publishing: "Publishing", arrivals: "set[Arrival]") -> None:
    """Cancel what runs for callers that are gone, until cancelled itself."""
    before: set[Arrival] = set()
    while True:
        await asyncio.sleep(PAUSE)
        lasting = before & arrivals
        before = {arrival for arrival in arrivals if arrival.reply_to is not None}
        await cancel_abandoned(publishing.connection, lasting)


async def cancel_abandoned(
    connection: Connection, arrivals: "Iterable[Arrival]"
) -> None:
    """Ask for each queue of replies once, and cancel what nobody awaits any more."""
    waiting: dict[bytes, list[Arrival]] = {}
    for arrival in arrivals:
        assert arrival.reply_to is not None
        waiting.setdefault(arrival.reply_to, []).append(arrival)
    for reply_to, asked in waiting.items():
        is_gone = connection.gate.is_open and await _is_gone(connection, reply_to)
        for arrival in asked if is_gone else ():
            arrival.delivery.cancel()


async def _is_gone(connection: Connection, reply_to: bytes) -> bool:
    """Whether a queue is no more; another client's own one is locked, and there."""
    channel = Channel(connection)
    question = DeclareQueue(queue=reply_to.decode(errors="replace"), passive=True)
    with contextlib.suppress(MicroserviceError):
        await channel.open()
        await channel.call(question)
        await channel.close()
    reason = channel.reason
    return isinstance(reason, BrokerClosed) and reason.code == NOT_FOUND
