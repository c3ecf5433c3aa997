"""One peer of a TCP server: what it asks is delivered, and answered in any order."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage
from ...wire.codecs import SHALLOW, Envelope, decode, find_id, is_too_deep
from ...wire.headers import PEER_HEADER, remaining
from ...wire.messages import UNSET, Message, Reply
from ...wire.patterns import Pattern
from ...wire.text import shown
from ...wire.unreadable import unreadable
from .connection import AT_ONCE, Connection, Drained
from .extension import ALIVE, BYE, CANCEL, HELLO, PING
from .tls import PeerIdentity, identity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .intake import Intake

logger = logging.getLogger(__name__)

STILL_ALIVE = 3.0
HALF_OPEN = 30.0
"""Seconds in which a stranger that ended its own side gets the answers it awaits."""


class TCPWire:
    """What only TCP knows of a message: ``context.wire``."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "ServerConnection") -> None:
        self._connection = connection

    @property
    def socket(self) -> asyncio.Transport:
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


class ServerConnection(Connection):
    """The connection of one peer.

    ``backlog`` keeps what was read while the server had no room, or while the peer did
    not read its answers; as long as there is one, reading is paused.
    """

    __slots__ = (
        "_finished",
        "_proves_life",
        "_queued",
        "_respond",
        "_said_hello",
        "_wire",
        "address",
        "backlog",
        "deliveries",
        "intake",
    )

    def __init__(self, intake: "Intake") -> None:
        super().__init__(intake.options, intake.loop)
        self.intake = intake
        self.deliveries: set[Any] = set()
        self.backlog: deque[bytes] | None = None
        self.address: str | None = None
        self._proves_life = False
        self._queued = False
        self._said_hello = False
        self._wire: TCPWire | None = None
        self._respond = self.respond  # bound once, not for every message
        self._finished = self.finished

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the peer, or refuse it when there are too many."""
        super().connection_made(transport)
        address = str(self.name[0]) if self.name else ""
        reason = self.intake.admit(self, address)
        if reason is None:
            self.address = address
        else:
            self.refuse(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the peer asked for: nobody awaits it any more."""
        super().connection_lost(exc)
        if self.address is not None:
            self.intake.dismiss(self, self.address)
        self._drop_backlog()
        deliveries = tuple(self.deliveries)
        self.deliveries.clear()
        for delivery in deliveries:
            delivery.cancel()

    def eof_received(self) -> bool:
        """Answer a stranger that has only ended its own side.

        A peer of ours never does so: its end means that it is gone, and cancels.
        """
        answers = self.transport.can_write_eof() and not self._said_hello
        if not (answers and self._awaits()):
            return super().eof_received()
        self.peer_ended = True
        self._began = 0.0
        self.loop.call_later(HALF_OPEN, self.transport.close)
        return True

    def _awaits(self) -> bool:
        return bool(self.deliveries or self.backlog)

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
        intake, few = self.intake, len(texts) <= AT_ONCE
        for text in texts:
            if few and self.backlog is None and intake.outstanding < intake.limit:
                self.message_received(text)
            else:
                self._hold().append(text)
        if self.backlog:
            self._queue()

    def _hold(self) -> deque[bytes]:
        if self.backlog is None:
            self.backlog = deque()
            self.pause_reading()
            if self._said_hello and not self._proves_life:
                self._proves_life = True
                self.loop.call_later(STILL_ALIVE, self._prove_life)
        return self.backlog

    def _prove_life(self) -> None:
        """Tell a peer of ours, while its ping would not be read, that we live."""
        self._proves_life = self.backlog is not None and not self.lost
        if self._proves_life:
            if not self.clogged:
                self._answer(ALIVE)
            self.loop.call_later(STILL_ALIVE, self._prove_life)

    def _queue(self) -> None:
        if not (self._queued or self.clogged):
            self._queued = True
            self.intake.wait(self)

    def work_off(self, most: int) -> int:
        """Deliver what was kept, as far as there is room; return how much it was."""
        self._queued = False
        backlog, intake, count = self.backlog, self.intake, 0
        try:
            while backlog and count < most and not (self.clogged or self.lost):
                if intake.outstanding >= intake.limit:
                    break
                count += 1
                self.message_received(backlog.popleft())
        except InvalidMessage as error:
            self.refuse(str(error))
        self._go_on()
        return count

    def _go_on(self) -> None:
        """Stay in line, or read on when nothing is kept any more."""
        if self.lost:
            self._drop_backlog()
        elif self.backlog:
            self._queue()
        elif self.backlog is not None and not self.clogged:
            self.backlog = None
            self.resume_reading()
            self._end_if_answered()

    def _drop_backlog(self) -> None:
        self.backlog = None
        if self._queued:
            self._queued = False
            self.intake.waiting.remove(self)

    def message_received(self, text: bytes) -> None:
        """Read one message and deliver it."""
        try:
            envelope = self.options.read(text)
        except InvalidMessage:
            if not is_too_deep(text):
                raise
            self._answer_unreadable(find_id(text))
            return
        if envelope is None or not (envelope.pattern or envelope.data):
            self._drop("a text that is no message")
            return
        if len(text) > SHALLOW and is_too_deep(text):
            self._answer_unreadable(envelope.id)
            return
        pattern = Pattern.from_json(bytes(envelope.pattern) or b'"undefined"')
        if pattern.is_reserved:
            self._control(pattern.route, envelope)
            return
        headers = envelope.metadata
        timeout = None
        if headers is not None:
            if not self._said_hello and PEER_HEADER in headers:
                self._greet()
            timeout = remaining(headers)
        id_, wire = envelope.id, self._wire or self._new_wire()
        data = envelope.data or UNSET
        intake = self.intake
        delivery = intake.deliver(
            Message(pattern, data, id_, headers, timeout, None, wire), self._respond
        )
        intake.outstanding += 1
        if delivery.outcome is None and id_ is not UNSET:
            self.deliveries.add(delivery)
        delivery.when_done(self._finished)

    def finished(self, delivery: Any) -> None:
        """Forget a delivery that ended."""
        self.deliveries.discard(delivery)
        intake = self.intake
        intake.outstanding -= 1
        if intake.waiting:
            intake.make_room()
        if self.peer_ended:
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self.peer_ended and not (self.lost or self._awaits()):
            self.end()

    def _new_wire(self) -> TCPWire:
        """One wire value serves all messages of the connection."""
        self._wire = TCPWire(self)
        return self._wire

    def _greet(self) -> None:
        """Say hello to a peer of ours, once."""
        self._said_hello = True
        self._answer(HELLO)
        if self.intake.pausing:
            self._answer(BYE)

    def _control(self, route: str, envelope: Envelope) -> None:
        """Serve a packet of our own extension; strangers get none of it."""
        if route == PING and self._said_hello:
            self._answer(Reply(envelope.id, b"0"))
        elif route == CANCEL and self._said_hello:
            self._cancel(decode(envelope.data) if envelope.data else None)
        elif envelope.id is not UNSET:
            self._answer(Reply(envelope.id, missing=True))

    def _cancel(self, id_: Any) -> None:
        for delivery in self.deliveries:
            if delivery.message.id == id_:
                delivery.cancel()
                return

    def _answer_unreadable(self, id_: Any) -> None:
        """Answer what cannot be read, if it can be told who asks."""
        reply = unreadable(id_)
        if reply is not None:
            self._answer(reply)
        elif id_ is UNSET:
            self._drop("an event that could not be read")
        else:
            self._drop("a request that could not be read, nor its id be echoed")

    def _drop(self, what: str) -> None:
        """Count what cannot be handled and cannot be answered."""
        self.intake.dropped += 1
        logger.warning("Dropped %s from %s.", what, self.peer)

    # --- out ---

    def respond(self, reply: Reply) -> "Awaitable[None] | None":
        """Write a reply; an awaitable says that the peer does not keep up."""
        text = self.options.write(reply)
        if len(text) > self.max_size:
            self.check_size(text)
        self.write(text)
        return Drained(self) if self.paused else None

    def _answer(self, reply: Reply) -> None:
        self.write(self.options.write(reply))

    def clog(self) -> None:
        """Read and begin nothing more for a peer that does not read."""
        super().clog()
        self._hold()

    def resume_writing(self) -> None:
        """Go on with what was kept, and read on."""
        super().resume_writing()
        self._go_on()

    # --- the end ---

    def say_goodbye(self) -> None:
        """Tell a peer of ours to use another connection from now on."""
        if self._said_hello:
            self._answer(BYE)
            self.flush()

    def end_writing(self) -> None:
        """Shut down writing once all is written; TLS can only close."""
        if self.transport.is_closing():
            return
        if self.peer_ended or not self.transport.can_write_eof():
            self.end()
            return
        self.reason = self.reason or "the server has stopped"
        self.flush()
        self.stop_writing()
        self.transport.write_eof()
        self._drop_backlog()
        self.resume_reading()
