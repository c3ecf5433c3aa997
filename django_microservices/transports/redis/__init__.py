"""Redis: Nest's wire on pub/sub, and durable streams.

``protocol`` reads and writes without I/O, ``connection`` is one connection of our own,
``address`` opens it, ``lines`` keeps those that belong together; ``options`` and
``halves`` are what both wires share. Pub/sub: ``transport`` has its own options,
``intake`` serves, ``link`` calls, ``answers`` are what a server owes. Streams:
``streams`` has their options, ``streams_intake`` serves and ``streams_link`` calls;
``entries`` are read and written without I/O, ``holdings`` are those that a consumer
has, ``upkeep`` takes over what another one left.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .address import SentinelHost
from .entries import RedisStreamsWire
from .intake import RedisWire
from .streams import RedisStreamsTransport
from .transport import RedisTransport

RedisContext: TypeAlias = MessageContext[RedisWire]
RedisStreamsContext: TypeAlias = MessageContext[RedisStreamsWire]

__all__ = [
    "RedisContext",
    "RedisStreamsContext",
    "RedisStreamsTransport",
    "RedisStreamsWire",
    "RedisTransport",
    "RedisWire",
    "SentinelHost",
]
