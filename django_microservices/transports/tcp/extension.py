"""Our own extension of Nest's wire: ours to ours, and invisible to Nest.

Source: ``reference/nest-wire.md`` A.10. It rests on what Nest does with what it does
not know: a reply packet of an unknown id is dropped, a text in metadata ignored.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ...exceptions import InvalidMessage
from ...wire.codecs import decode
from ...wire.headers import PEER_HEADER
from ...wire.messages import Reply
from ...wire.packets import Envelope
from ...wire.patterns import Pattern

if TYPE_CHECKING:
    from .peer import ServerConnection

PING, CANCEL = "dm-ping", "dm-cancel"
HELLO = Reply("dm-hello", b'{"v":1}')
BYE = Reply("dm-bye", b"null")
ALIVE = Reply("dm-alive", b"null")
"""What a server sends that does not read for a while: a ping would wait unread."""

STILL_ALIVE = 3.0

_PEER = b'"%b"' % PEER_HEADER.encode()
_BEGINNINGS = (b'{"pattern":"dm-', b'{"pattern": "dm-')

Read: TypeAlias = Callable[[bytes], Envelope | None]
Packet: TypeAlias = tuple[Pattern, Envelope]


class Extension:
    """What a server does for a peer of ours, from the moment that it knows it."""

    __slots__ = ("_connection", "_proves_life")

    def __init__(self, connection: "ServerConnection") -> None:
        self._connection = connection
        self._proves_life = False
        connection.answer(HELLO)
        if connection.intake.pausing:
            connection.answer(BYE)

    def serve(self, pattern: Pattern, envelope: Envelope) -> bool:
        """Do as a packet of ours says; whether it is one that we know."""
        if pattern.route == PING:
            self._connection.answer(Reply(envelope.id, b"0"))
        elif pattern.route == CANCEL:
            self._connection.cancel(decode(envelope.data) if envelope.data else None)
        else:
            return False
        return True

    def prove_life(self) -> None:
        """Tell the peer now and then, while its ping would not be read, that we live.

        However often reading stops, one timer counts.
        """
        if not self._proves_life:
            self._proves_life = True
            self._connection.loop.call_later(STILL_ALIVE, self._prove_life)

    def _prove_life(self) -> None:
        connection = self._connection
        self._proves_life = connection.deaf and not connection.lost
        if self._proves_life:
            if not connection.output.clogged:
                connection.answer(ALIVE)
            connection.loop.call_later(STILL_ALIVE, self._prove_life)

    def say_goodbye(self) -> None:
        """Tell the peer to use another connection from now on."""
        self._connection.answer(BYE)
        self._connection.output.flush()


# --- what is ours among texts that must wait -------------------------------------


def is_ours(text: bytes, read: Read) -> bool:
    """Whether a request says that a peer of ours sent it."""
    envelope = _envelope(text, read) if _PEER in text else None
    return bool(envelope and envelope.metadata and PEER_HEADER in envelope.metadata)


def sort(texts: Sequence[bytes], read: Read) -> tuple[list[bytes], list[Packet]]:
    """Take the packets of ours out of texts that must wait: they need not.

    It must be cheap, so they are known by how they begin, as our clients write them.
    """
    others: list[bytes] = []
    packets: list[Packet] = []
    for text in texts:
        packet = _packet(text, read) if text.startswith(_BEGINNINGS) else None
        if packet is None:
            others.append(text)
        else:
            packets.append(packet)
    return others, packets


def _packet(text: bytes, read: Read) -> Packet | None:
    envelope = _envelope(text, read)
    if envelope is None:
        return None
    pattern = Pattern.from_json(bytes(envelope.pattern))
    return (pattern, envelope) if pattern.route in {PING, CANCEL} else None


def _envelope(text: bytes, read: Read) -> Envelope | None:
    """Read a text early; what cannot be read is dealt with when its turn comes."""
    try:
        return read(text)
    except InvalidMessage:
        return None
