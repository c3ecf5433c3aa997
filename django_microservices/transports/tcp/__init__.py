"""Nest's TCP wire.

``transport`` has the options and opens the two halves: ``intake`` serves, each
connection a ``peer``, whose messages stand in ``line`` (``backlog``) while there is no
room; ``link`` calls. ``connection`` and ``output`` are what both share. ``protocol``
cuts frames without I/O, ``handshake`` begins TLS; ``extension`` is what is ours and
not Nest's, ``context`` what a handler sees.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from ..tls import PeerIdentity, TLSOptions
from .context import TCPWire
from .protocol import JsonSocket
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
