"""Nest's TCP wire.

``protocol`` cuts frames without I/O; ``connection`` is what both halves share;
``intake`` serves, ``link`` calls; ``tls`` reads certificates; ``transport`` has the
options and opens the halves.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .intake import TCPWire
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
