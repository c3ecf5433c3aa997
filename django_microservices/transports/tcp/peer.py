"""One peer of a TCP server: what it asks is delivered, and answered in any order."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...wire.codecs import TooMuch, is_too_deep
from ...wire.headers import PEER_HEADER, remaining
from ...wire.messages import UNSET, Message, Reply
from ...wire.packets import Envelope, find_id
from ...wire.patterns import Pattern
from ...wire.text import shown
from ...wire.unreadable import unreadable
from ..stream import Drained
from .backlog import UNWANTED
from .connection import AT_ONCE, Connection
from .context import TCPWire
from .extension import Extension, Packet, is_ours, sort
from .line import Line
from .pending import Pending

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from .intake import Intake

logger = logging.getLogger(__name__)

HALF_OPEN = 30.0
"""Seconds in which a stranger that ended its own side gets the answers it awaits."""


class ServerConnection(Connection):
    """The connection of one peer.

    ``pending`` is what it awaits. ``line`` is there while the server has no room, or
    the peer does not read its answers: then all that is read goes there. ``extension``
    is there once the peer has said that it is ours. ``finishing`` says that nothing
    more is taken, and that it ends once all that was is answered. ``free_since`` is
    when it last stood in line. ``gone`` says that only its events are left.
    """

    __slots__ = (
        "_add",
        "_half_open",
        "_respond",
        "_wire",
        "extension",
        "finishing",
        "free_since",
        "gone",
        "intake",
        "line",
        "pending",
    )

    def __init__(self, intake: "Intake") -> None:
        super().__init__(intake.options, intake.loop)
        self.intake = intake
        self.pending = Pending(self)
        self.line: Line | None = None
        self.extension: Extension | None = None
        self.finishing = False
        self.free_since = 0.0
        self.gone = False
        self.output.patience = intake.options.unread_timeout
        self._half_open: asyncio.TimerHandle | None = None
        self._wire: TCPWire | None = None
        self._respond = self.respond  # bound once, not for every message
        self._add = self.pending.add

    # --- life ---

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Admit the peer, or refuse it when there are too many."""
        is_counted = self.name is not None  # since its handshake began
        super().connection_made(transport)
        reason = None if is_counted else self.intake.admit(self.name)
        if reason is None:
            self.intake.connections.add(self)
        else:
            self.refuse(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the peer asked for: nobody awaits it any more.

        Its events are handled, and it is counted until the last has begun.
        """
        super().connection_lost(exc)
        if self._half_open is not None:
            self._half_open.cancel()
        if self in self.intake.connections:
            self.intake.part(self)
            self.gone = True
        self.pending.cancel()
        if self.line is not None:
            self.line.go_on()
        elif self.gone:
            self.intake.dismiss(self.name)

    def eof_received(self) -> bool:
        """Answer a stranger that has only ended its own side, but for streams.

        Nest's client that closes looks the same, and would let a stream go on for
        nobody. A peer of ours never ends one side: its end means that it is gone.
        """
        if self.extension is None and self.transport.can_write_eof():
            self.pending.cancel(only_streams=True)
            if self._awaits():
                self.peer_ended = self.finishing = True
                self._began = 0.0
                close = self.transport.close
                self._half_open = self.loop.call_later(HALF_OPEN, close)
                return True
        return super().eof_received()

    def _awaits(self) -> bool:
        waiting = 0 if self.line is None else self.line.backlog.count
        return bool(waiting or self.pending.deliveries)

    def explain(self, reason: str) -> None:
        """Keep the first reason for the end, and log it."""
        if self.reason is None:
            logger.warning(
                "Closed the connection with %s: %s.", self.peer, shown(reason)
            )
        super().explain(reason)

    # --- in ---

    def texts_received(self, texts: list[bytes]) -> None:
        """Deliver messages, or keep them until the server has room.

        Very many are delivered in parts, so that others get their turn.
        """
        if self.finishing:
            self._serve_packets(texts)
            return
        if len(texts) > AT_ONCE:
            self.hold(texts)
            return
        intake, rest = self.intake, iter(texts)
        for text in rest:
            if self.line is not None or intake.outstanding >= intake.limit:
                self.hold([text, *rest])
                break
            self.message_received(text)

    def hold(self, texts: Sequence[bytes] = ()) -> None:
        """Keep messages, and those that come, until there is room."""
        if self.line is None:
            self.line = Line(self)
        self.line.hold(texts)

    def message_received(self, text: bytes) -> None:
        """Read one message and deliver it."""
        try:
            envelope = self.options.read(text)
        except TooMuch:
            self._answer_unreadable(find_id(text))
            return
        if envelope is None or not (envelope.pattern or envelope.data):
            self._drop("a text that is no message")
            return
        id_ = envelope.id
        if self.lost and id_ is not UNSET:
            return
        if is_too_deep(text):
            self._answer_unreadable(id_)
            return
        pattern = Pattern.from_json(bytes(envelope.pattern) or b'"undefined"')
        # Texts are compared, since startswith() would take five times as long.
        if pattern.is_reserved or (id_.__class__ is str and "dm-" <= id_ < "dm."):
            self.control(pattern, envelope)
            return
        headers = envelope.metadata
        timeout = None
        if headers is not None:
            if self.extension is None and PEER_HEADER in headers:
                self.extension = Extension(self)
            timeout = remaining(headers)
        if self.line is not None:
            timeout = self.line.backlog.left(id_, timeout, self.loop.time())
            if timeout == UNWANTED:
                return
        intake, wire = self.intake, self._wire or self._new_wire()
        data = envelope.data or UNSET
        delivery = intake.deliver(
            Message(pattern, data, id_, headers, timeout, None, wire), self._respond
        )
        self._add(delivery, id_)

    def finish(self) -> None:
        """Take nothing more, and end once all that was taken is answered."""
        self.finishing = True
        self.end_if_answered()

    def end_if_answered(self) -> None:
        """End with a peer that awaits nothing more, where nothing more is taken."""
        if self.finishing and not (self.lost or self._awaits()):
            self.end_writing()

    def _new_wire(self) -> TCPWire:
        """One wire value serves all messages of the connection."""
        self._wire = TCPWire(self)
        return self._wire

    def look_for_peer(self, texts: Sequence[bytes]) -> None:
        """Greet a peer of ours before its turn comes: only then may it cancel."""
        read = self.options.read
        if self.extension is None and any(is_ours(text, read) for text in texts):
            self.extension = Extension(self)

    def control(self, pattern: Pattern, envelope: Envelope) -> None:
        """Serve a packet of our own extension; strangers get none of it."""
        id_ = envelope.id
        if not pattern.is_reserved:
            self._drop("a request whose id is reserved")
        elif self.extension is not None and self.extension.serve(pattern, envelope):
            return
        elif id_ is not UNSET:
            self.answer(Reply(id_, missing=True))

    def _serve_packets(self, texts: Sequence[bytes]) -> None:
        """Go on hearing what a peer of ours awaits no more, and whether we live."""
        packets: list[Packet] = []
        if self.extension is not None:
            texts, packets = sort(texts, self.options.read)
        if texts:
            self._drop("what came while the server ends", len(texts))
        for packet in packets:
            self.control(*packet)

    def cancel(self, id_: Any) -> None:
        """The peer awaits the answer to one of its requests no more."""
        delivery = self.pending.find(id_)
        if delivery is not None:
            delivery.cancel()
        elif self.line is not None and isinstance(id_, str | int):
            self.line.backlog.cancel(id_)

    def _answer_unreadable(self, id_: Any) -> None:
        """Answer what cannot be read, if it can be told who asks."""
        reply = unreadable(id_)
        if reply is not None:
            self.answer(reply)
        elif id_ is UNSET:
            self._drop("an event that could not be read")
        else:
            self._drop("a request that could not be read, nor its id be echoed")

    def _drop(self, what: str, count: int = 1) -> None:
        """Count what cannot be handled and cannot be answered."""
        self.intake.dropped += count
        logger.warning("Dropped %s from %s.", what, self.peer)

    # --- out ---

    def respond(self, reply: Reply) -> "Awaitable[None] | None":
        """Write a reply; an awaitable before the last says that the peer is behind."""
        text, output = self.options.write(reply), self.output
        if len(text) > output.max_size:
            output.check_size(text)
        output.write(text)
        if output.paused and not reply.last:
            return Drained(self.pending.drained, reply)
        return None

    def answer(self, reply: Reply) -> None:
        """Write a packet that is nobody's answer but ours."""
        self.output.write(self.options.write(reply))

    def clog(self) -> None:
        """Read and begin nothing more for a peer that does not read."""
        super().clog()
        self.hold()

    def resume_writing(self) -> None:
        """Go on with what was kept, and read on."""
        super().resume_writing()
        if self.line is not None:
            self.line.go_on()

    # --- the end ---

    def end_writing(self) -> None:
        """Shut down writing once all is written; TLS can only close."""
        if self.transport.is_closing():
            return
        if self.peer_ended or not self.transport.can_write_eof():
            self.end()
            return
        self.reason = self.reason or "the server has stopped"
        self.output.flush()
        self.output.stop()
        self.transport.write_eof()
        if self.line is not None:
            self.line.leave()
        self.resume_reading()
