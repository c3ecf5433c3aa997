"""JetStream, the durable half of NATS, for events.

``api`` asks it in JSON, ``places`` makes streams and consumers, ``names`` names them;
``consumer`` pulls messages, ``receipts`` tell what became of them; ``intake`` serves,
``link`` calls; ``transport`` has the options and opens the halves.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .intake import JetStreamWire
from .transport import JetStreamTransport

JetStreamContext: TypeAlias = MessageContext[JetStreamWire]

__all__ = ["JetStreamContext", "JetStreamTransport", "JetStreamWire"]
