"""What a handler can know of its message that only TCP knows: ``context.wire``."""

from typing import TYPE_CHECKING

from ..tls import PeerIdentity, identity

if TYPE_CHECKING:
    import asyncio

    from .connection import Connection


class TCPWire:
    """The connection that a message came by."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    @property
    def socket(self) -> "asyncio.Transport":
        """The connection's asyncio transport."""
        return self._connection.transport

    @property
    def peer(self) -> str:
        """The peer's address."""
        return self._connection.peer

    @property
    def identity(self) -> PeerIdentity | None:
        """Whom the peer's certificate names, under mutual TLS."""
        return identity(self._connection.transport)
