"""What the halves of both wires of Redis share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage
from ...wire.codecs import is_too_deep
from ...wire.messages import Reply
from ...wire.packets import read_reply
from ...wire.unreadable import TOO_DEEP
from .lines import Lines

if TYPE_CHECKING:
    from ..base import Receive
    from .address import Address


class Half:
    """Connections that are opened and lost together, as an end is shown them."""

    def __init__(
        self, address: "Address", lost: Callable[[], None] = lambda: None
    ) -> None:
        self.lines = Lines(address, lost)
        self.closed = self.lines.closed

    @property
    def address(self) -> str:
        """The server, for people."""
        return str(self.lines.place)

    @property
    def driver(self) -> Any:
        """A client of redis-py for the same server."""
        return self.lines.driver


class Caller(Half):
    """The half of a client: it asks on one connection, is answered on another."""

    def __init__(self, address: "Address", receive: "Receive") -> None:
        super().__init__(address)
        self.pub = self.lines.add()
        self.sub = self.lines.add(self._received)
        self.ignored = 0
        self._receive = receive

    def _received(self, value: list[bytes]) -> None:
        """Hand a reply over; what is none, other peers may have published."""
        reply = read_answer(value[-1])
        if reply is None:
            self.ignored += 1
        else:
            self._receive(reply)


def read_answer(text: bytes) -> Reply | None:
    """Read what came on a reply channel; ``None`` is no reply."""
    try:
        reply = read_reply(text)
    except InvalidMessage:
        return None
    if reply is not None and is_too_deep(text):
        return Reply(reply.id, TOO_DEEP)
    return reply
