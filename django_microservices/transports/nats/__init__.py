"""NATS, on Nest's wire.

``protocol`` cuts packets without I/O; ``connection`` reads, writes and watches one
socket; ``servers`` connects, ``credentials`` says as whom; ``subjects`` makes subjects
of patterns; ``intake`` serves, ``answers`` sends its replies; ``link`` calls;
``transport`` has the options and opens the halves.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .intake import NATSWire
from .servers import NATSTLSOptions
from .transport import NATSTransport

NATSContext: TypeAlias = MessageContext[NATSWire]

__all__ = ["NATSContext", "NATSTLSOptions", "NATSTransport", "NATSWire"]
