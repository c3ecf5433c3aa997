"""Nest's TCP wire.

``protocol`` cuts frames without I/O; ``connection`` is what both halves share, and
``sockets`` what it asks of a socket; ``intake`` serves, each connection a ``peer``;
``link`` calls; ``extension`` names what is ours and not Nest's; ``tls`` reads
certificates; ``transport`` has the options and opens the halves.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .peer import TCPWire
from .protocol import JsonSocket
from .tls import PeerIdentity, TLSOptions
from .transport import TCPTransport

TCPContext: TypeAlias = MessageContext[TCPWire]

__all__ = [
    "JsonSocket",
    "PeerIdentity",
    "TCPContext",
    "TCPTransport",
    "TCPWire",
    "TLSOptions",
]
