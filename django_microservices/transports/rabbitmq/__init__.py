"""Nest's RabbitMQ wire, AMQP 0-9-1.

``protocol`` and ``frames`` read and write frames without I/O, ``properties`` what
stands beside a body, ``handshake`` the first words; ``connection``, ``channel`` and
``confirms`` speak with a broker, found by ``connecting``; ``topology`` declares;
``link`` calls, with ``outgoing``; ``intake`` serves, each message an arrival, settled
by ``acks`` or among the ``failures``; ``transport`` has the options.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .topology import QueueOptions
from .transport import RabbitMQTransport, SocketOptions
from .wire import RabbitMQWire

RabbitMQContext: TypeAlias = MessageContext[RabbitMQWire]

__all__ = [
    "QueueOptions",
    "RabbitMQContext",
    "RabbitMQTransport",
    "RabbitMQWire",
    "SocketOptions",
]
