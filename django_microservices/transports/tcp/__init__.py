"""Nest's TCP wire.

``transport`` has the options and opens the two halves: ``intake`` serves, each
connection a ``peer``, whose messages stand in ``line`` (``backlog``) while there is no
room; ``link`` calls. ``connection`` and ``output`` are what both share. ``protocol``
cuts frames without I/O, ``sockets`` is what we ask of a socket, ``tls`` reads
certificates and ``handshake`` begins with them; ``extension`` is what is ours and not
Nest's, ``context`` what a handler sees.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .context import TCPWire
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
