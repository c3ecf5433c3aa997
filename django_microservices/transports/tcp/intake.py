"""The server's half of the TCP wire."""

import asyncio
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage
from ...wire.codecs import (
    encode,
    find_id,
    is_too_deep,
    read_envelope,
    write_reply,
)
from ...wire.messages import UNSET, Message, Reply
from ...wire.patterns import Pattern
from ..base import Deliver, Delivery
from .connection import LINGER, Connection, address_text
from .tls import PeerIdentity, identity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .transport import TCPTransport

logger = logging.getLogger(__name__)

# Our own extension, reference/nest-wire.md A.10.
PEER_HEADER = "dm-peer"
TIMEOUT_HEADER = "dm-timeout"
PING, CANCEL = "dm-ping", "dm-cancel"
HELLO = Reply("dm-hello", b'{"v":1}')
BYE = Reply("dm-bye", b"null")

UNREADABLE = encode({"status": "error", "message": "The message could not be read."})
QUIET = 0.05
_MOST_TIMEOUT_DIGITS = 9


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


class Intake:
    """All connections of one listening server."""

    def __init__(
        self,
        options: "TCPTransport",
        deliver: Deliver,
        loop: asyncio.AbstractEventLoop,
        limit: int,
    ) -> None:
        self.options = options
        self.deliver = deliver
        self.loop = loop
        self.limit = limit
        self.outstanding = 0
        self.dropped = 0
        self.connections: set[ServerConnection] = set()
        self.per_address: Counter[str] = Counter()
        self.waiting: deque[ServerConnection] = deque()
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self.listener: asyncio.Server | None = None
        self.pausing = False
        self.heard = 0.0

    @property
    def driver(self) -> Any:
        """The asyncio server."""
        return self.listener

    @property
    def address(self) -> str:
        """Where it listens."""
        if self.listener is None or not self.listener.sockets:
            return "closed"
        scheme = "tls" if self.options.tls_options else "tcp"
        names = (address_text(s.getsockname()) for s in self.listener.sockets)
        return ", ".join(f"{scheme}://{name}" for name in names)

    def accept(self) -> "ServerConnection":
        """Make the protocol of a new connection."""
        return ServerConnection(self)

    def finished(self) -> None:
        """Count a delivery that ended, and go on reading where reading waited."""
        self.outstanding -= 1
        if self.waiting:
            self.work_off()

    def work_off(self) -> None:
        """Deliver what waits, as far as there is room."""
        while self.waiting and self.outstanding < self.limit:
            self.waiting.popleft().work_off()

    # --- the end ---

    async def pause(self) -> None:
        """Stop accepting, say goodbye to peers of ours, and answer what still comes.

        Returns when no peer is left, or when nothing is in flight and nothing new
        came for 50 ms.
        """
        self.pausing = True
        if self.listener is not None:
            self.listener.close()
        for connection in tuple(self.connections):
            connection.say_goodbye()
        self.heard = self.loop.time()
        while self.connections and not self._quiet():
            await asyncio.sleep(QUIET / 5)

    def _quiet(self) -> bool:
        if self.outstanding or self.waiting:
            self.heard = self.loop.time()
        return self.loop.time() - self.heard > QUIET

    async def close(self) -> None:
        """End writing, read and discard for a moment, close.

        A plain close with unread input would reset the connection, and answers
        already written would be lost.
        """
        if self.listener is not None:
            self.listener.close()
        for connection in tuple(self.connections):
            connection.end_writing()
        deadline = self.loop.time() + LINGER
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(QUIET / 5)
        for connection in tuple(self.connections):
            connection.abort("the server has stopped")
        if not self.closed.done():
            self.closed.set_result(None)


class ServerConnection(Connection):
    """One peer of the server."""

    __slots__ = (
        "_finished",
        "_respond",
        "_said_hello",
        "_wire",
        "address",
        "backlog",
        "deliveries",
        "intake",
    )

    def __init__(self, intake: Intake) -> None:
        super().__init__(intake.options, intake.loop)
        self.intake = intake
        self.deliveries: dict[str, Delivery] = {}
        self.backlog: deque[bytes] | None = None
        self.address: str | None = None
        self._said_hello = False
        self._wire: TCPWire | None = None
        self._respond = self.respond  # bound once, not for every message
        self._finished = self.finished

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the peer, or refuse it when there are too many."""
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        address = str(name[0]) if name else ""
        reason = self._refusal(address)
        if reason is not None:
            self.refuse(reason)
            return
        self.address = address
        self.intake.connections.add(self)
        self.intake.per_address[address] += 1

    def _refusal(self, address: str) -> str | None:
        options, intake = self.options, self.intake
        if len(intake.connections) >= options.max_connections:
            return f"more than max_connections={options.max_connections}"
        if intake.per_address[address] >= options.max_connections_per_address:
            most = options.max_connections_per_address
            return f"more than max_connections_per_address={most}"
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the peer asked for: nobody awaits it any more."""
        super().connection_lost(exc)
        if self.address is not None:
            self.intake.connections.discard(self)
            self.intake.per_address[self.address] -= 1
            if not self.intake.per_address[self.address]:
                del self.intake.per_address[self.address]
        self._drop_backlog()
        deliveries = tuple(self.deliveries.values())
        self.deliveries.clear()
        for delivery in deliveries:
            delivery.cancel()

    def _drop_backlog(self) -> None:
        if self.backlog is not None:
            self.backlog = None
            self.intake.waiting.remove(self)

    # --- in ---

    def frame_received(self, text: bytes) -> None:
        """Deliver a message, or keep it until the server has room."""
        intake = self.intake
        if self.backlog is None and intake.outstanding < intake.limit:
            self.message_received(text)
            return
        if self.backlog is None:
            self.backlog = deque()
            intake.waiting.append(self)
            self._pause_reading()
        self.backlog.append(text)

    def work_off(self) -> None:
        """Deliver what was kept, as far as there is room."""
        backlog, intake = self.backlog, self.intake
        while backlog and intake.outstanding < intake.limit:
            self.message_received(backlog.popleft())
        if backlog:
            intake.waiting.append(self)
        elif self.backlog is not None:
            self.backlog = None
            self._resume_reading()

    def message_received(self, text: bytes) -> None:
        """Read one message and deliver it."""
        try:
            envelope = self.options.read(text)
        except InvalidMessage as error:
            self._unreadable(text, error)
            return
        if envelope is None or not (envelope.pattern or envelope.data):
            self.drop("a text that is no message")
            return
        if is_too_deep(text):
            self.answer_unreadable(envelope.id)
            return
        pattern = Pattern.from_json(bytes(envelope.pattern) or b'"undefined"')
        if pattern.is_reserved:
            self._control(pattern.route, envelope)
            return
        headers = envelope.metadata
        timeout = None if headers is None else self._read_headers(headers)
        wire = self._wire or self._new_wire()
        data = envelope.data or UNSET
        self._deliver(
            Message(pattern, data, envelope.id, headers, timeout, None, wire)
        )

    def _deliver(self, message: Message) -> None:
        intake = self.intake
        intake.outstanding += 1
        if intake.pausing:
            intake.heard = self.loop.time()
        delivery = intake.deliver(message, self._respond)
        id_ = message.id
        if delivery.outcome is None and type(id_) is str:
            self.deliveries[id_] = delivery
        delivery.when_done(self._finished)

    def finished(self, delivery: Any) -> None:
        """Forget a delivery that ended."""
        self.deliveries.pop(delivery.message.id, None)
        self.intake.finished()

    def _new_wire(self) -> TCPWire:
        """One wire value serves all messages of the connection."""
        self._wire = TCPWire(self)
        return self._wire

    def _read_headers(self, headers: dict[str, str]) -> float | None:
        """Return the seconds that the caller will wait; greet a peer of ours."""
        if not self._said_hello and PEER_HEADER in headers:
            self._said_hello = True
            self.write(write_reply(HELLO))
            if self.intake.pausing:
                self.write(write_reply(BYE))
        text = headers.get(TIMEOUT_HEADER)
        if text is None or not text.isdecimal() or len(text) > _MOST_TIMEOUT_DIGITS:
            return None
        return int(text) / 1000

    def _control(self, route: str, envelope: Any) -> None:
        """Serve a packet of our own extension; strangers get none of it."""
        if route == PING and self._said_hello:
            self.write(write_reply(Reply(envelope.id, b"0")))
        elif route == CANCEL and self._said_hello:
            delivery = self.deliveries.pop(self._cancelled_id(envelope.data), None)
            if delivery is not None:
                delivery.cancel()
        elif envelope.id is not UNSET:
            self.write(write_reply(Reply(envelope.id, missing=True)))

    @staticmethod
    def _cancelled_id(data: Any) -> str:
        return bytes(data).decode().strip('"')

    def _unreadable(self, text: bytes, error: InvalidMessage) -> None:
        if is_too_deep(text):
            self.answer_unreadable(find_id(text))
        else:
            self.refuse(str(error))

    def answer_unreadable(self, id_: Any) -> None:
        """Answer what cannot be read, if it can be told who asks."""
        if id_ is UNSET:
            self.drop("an event that could not be read")
        else:
            self.write(write_reply(Reply(id_, None, UNREADABLE)))

    def drop(self, what: str) -> None:
        """Count what cannot be handled and cannot be answered."""
        self.intake.dropped += 1
        logger.warning("Dropped %s from %s.", what, self.peer)

    # --- out ---

    def respond(self, reply: Reply) -> "Awaitable[None] | None":
        """Write a reply; an awaitable says that the peer does not keep up."""
        text = self.options.write(reply)
        if len(text) > self.max_size:
            raise self.too_large(text)
        self.write(text)
        return self.drained() if self.paused else None

    def pause_writing(self) -> None:
        """Read nothing more from a peer that does not read."""
        super().pause_writing()
        self._pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.paused or self.backlog is not None or self.transport.is_closing():
            return
        self.transport.resume_reading()

    # --- the end ---

    def say_goodbye(self) -> None:
        """Tell a peer of ours to use another connection from now on."""
        if self._said_hello:
            self.write(write_reply(BYE))
            self.flush()

    def end_writing(self) -> None:
        """Shut down writing once all is written; TLS can only close."""
        self.reason = self.reason or "the server has stopped"
        self.flush()
        if self.peer_ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._resume_reading()


