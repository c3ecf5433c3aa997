"""The client's half of the NATS wire."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage, NotConnected
from ...wire.channels import is_reply
from ...wire.codecs import is_too_deep
from ...wire.headers import headers_of
from ...wire.messages import UNSET, Message, Reply, new_id
from ...wire.packets import read_reply, write_message
from ...wire.unreadable import TOO_DEEP
from ..stream import Drained
from .protocol import MESSAGE_ID, Packet, is_unheard, write_headers
from .subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..base import Receive
    from .connection import Connection

_MOST_HEADERS = 1024


class Link:
    """One connection of a client.

    Answers come to inboxes below one subscription, ``<prefix>.<link>.<id>``. A stream
    has an inbox of its own, ``<prefix>.<inbox>``: when it is closed NATS tells the
    server that nobody listens any more, which ends a stream without end.
    """

    def __init__(
        self,
        connection: "Connection",
        receive: "Receive",
        *,
        headers: Mapping[str, str],
        inbox_prefix: str,
    ) -> None:
        self.connection = connection
        self.closed = connection.closed
        self.ignored = 0
        self._receive = receive
        self._headers = headers
        self._blocks: dict[float | None, bytes] = {}
        self._prefix = inbox_prefix
        self._inbox = f"{inbox_prefix}.{new_id()}.".encode()
        self._streams: dict[Any, bytes] = {}

    @property
    def driver(self) -> "Connection":
        """The connection."""
        return self.connection

    async def open(self) -> None:
        """Listen for answers; raise :class:`TransportRefused` where that may not be."""
        self.connection.subscribe(self._inbox + b"*", self._answered)
        await self.connection.settled()

    # --- out ---

    def publish(self, message: Message) -> "Awaitable[None] | None":
        """Write a message; an awaitable says that the server does not keep up.

        Raises :class:`NotConnected`, :class:`MessageTooLarge`, and ``ValueError`` for
        a pattern or headers that NATS does not take.
        """
        connection = self.connection
        if connection.lost:
            raise NotConnected(connection.reason or "")
        subject, body = subject_of(message.pattern.route), body_of(message)
        block = self.block_of(message)
        reply = b"" if message.id is UNSET else self._reply_to(message)
        connection.publish(subject, body, reply, block)
        return Drained(connection.drained) if connection.paused else None

    def block_of(self, message: Message) -> bytes:
        """Return the headers of a message; few kinds recur, so these are kept."""
        if message.headers is not None or message.options:
            return write_headers(self.headers_for(message))
        key = None if message.id is UNSET else message.timeout or 0
        try:
            return self._blocks[key]
        except KeyError:
            if len(self._blocks) > _MOST_HEADERS:
                self._blocks.clear()
            block = self._blocks[key] = write_headers(self.headers_for(message))
            return block

    def headers_for(self, message: Message) -> dict[str, str]:
        """Return the headers of all messages, of this one, and our own."""
        headers = {**self._headers, **(headers_of(message) or {})}
        if message.options and "message_id" in message.options:
            headers[MESSAGE_ID] = str(message.options["message_id"])
        return headers

    def _reply_to(self, message: Message) -> bytes:
        id_: str = message.id
        if not message.stream:
            return self._inbox + id_.encode()
        inbox = f"{self._prefix}.{new_id()}".encode()
        self._streams[id_] = self.connection.subscribe(
            inbox, lambda packet: self._received(packet, id_)
        )
        return inbox

    def forget(self, id_: Any, *, answered: bool) -> None:  # noqa: ARG002
        """Close the inbox of a stream."""
        sid = self._streams.pop(id_, None)
        if sid is not None:
            self.connection.forget(sid)

    # --- in ---

    def _answered(self, packet: Packet) -> None:
        id_ = packet.subject[len(self._inbox) :].decode(errors="replace")
        self._received(packet, id_)

    def _received(self, packet: Packet, id_: str) -> None:
        """Hand a reply to the client; one for another request is ignored."""
        body = packet.body
        if not body:
            self._receive(_empty(packet, id_))
            return
        try:
            reply = read_reply(body)
        except InvalidMessage:
            reply = Reply(id_, body)
        if reply is None or reply.id is None:
            reply = _foreign(reply, body, id_)
        if reply.id != id_:
            self.ignored += 1
        elif is_too_deep(body):
            self._receive(Reply(id_, TOO_DEEP))
        else:
            self._receive(reply)


def body_of(message: Message) -> bytes:
    """Write Nest's packet: the pattern as given, in requests and in events (A.2)."""
    data = message.data
    return write_message(
        message.pattern.json, None if data is UNSET else data, message.id, None
    )


def _empty(packet: Packet, id_: str) -> Reply:
    """Read an answer without a body: NATS' own "no responders", or a plain one."""
    return Reply(id_, missing=is_unheard(packet.headers))


def _foreign(reply: Reply | None, body: bytes, id_: str) -> Reply:
    """Take the answer of a service that is no Nest's; the inbox says to what.

    As with Nest, what is no packet of its own is the value itself.
    """
    if reply is None or not is_reply(body):
        return Reply(id_, body)
    reply.id = id_
    return reply
