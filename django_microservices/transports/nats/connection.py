"""One connection to a NATS server: its subscriptions, and its signs of life."""

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from ...wire.text import shown
from ..stream import BatchedStream
from .protocol import (
    ERR,
    INFO,
    LONGEST_SUBJECTS,
    PING,
    PONG,
    WRITTEN_PING,
    WRITTEN_PONG,
    Packet,
    Reader,
    publish,
    subscribe,
    unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

LINGER = 1.0

_DENIED = "permissions violation"


class Connection(BatchedStream):
    """A connection to the server at ``address``, and its subscriptions.

    ``greeted`` ends with the server's first INFO (``None`` if the connection ended
    before), ``info`` is the latest. ``denied`` is what the server refused us last.
    """

    __slots__ = (
        "_last_sid",
        "_pongs",
        "_reader",
        "_subscriptions",
        "_timer",
        "_unanswered",
        "address",
        "denied",
        "greeted",
        "heard",
        "info",
        "max_payload",
        "max_ping_out",
        "ping_interval",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        *,
        ping_interval: float,
        max_ping_out: int,
    ) -> None:
        super().__init__(loop)
        self.address = address
        self.ping_interval = ping_interval
        self.max_ping_out = max_ping_out
        self.greeted: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.info: dict[str, Any] = {}
        self.max_payload = 1024 * 1024
        self.denied: str | None = None
        self.heard = False
        self._reader = Reader()
        self._subscriptions: dict[bytes, Callable[[Packet], None]] = {}
        self._last_sid = 0
        self._pongs: deque[asyncio.Future[bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered = 0

    # --- life ---

    def ended(self) -> None:
        """Wake everybody who waits for the server."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.greeted.done():
            self.greeted.set_result(None)
        while self._pongs:
            _answer(self._pongs.popleft(), arrived=False)

    async def close(self) -> None:
        """Close once the server has taken what was written, or after a moment.

        A plain close with input unread would reset the connection, and the server
        would lose what it has not read yet.
        """
        try:
            self._subscriptions.clear()
            self.resume_reading()
            await asyncio.wait((self.ping(),), timeout=LINGER)
        finally:
            self.abort("closed")
            await asyncio.wait((self.closed,), timeout=LINGER)

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand messages to their subscriptions."""
        self.heard = True
        subscriptions = self._subscriptions
        for packet in self._reader.receive(data):
            if packet.sid:
                received = subscriptions.get(packet.sid)
                if received is not None:
                    _hand_over(packet, received)
            else:
                self._control(packet.op, packet.body)
        if self._reader.error is not None:
            self.abort(self._reader.error)

    def _control(self, op: bytes, words: bytes) -> None:
        if op == PING:
            self.write(WRITTEN_PONG)
        elif op == PONG and self._pongs:
            _answer(self._pongs.popleft(), arrived=True)
        elif op == INFO:
            self._informed(words)
        elif op == ERR:
            self._refused(words.decode(errors="replace").strip("' "))

    def _informed(self, words: bytes) -> None:
        try:
            info = json.loads(words)
            self.max_payload = int(info["max_payload"])
        except (ValueError, KeyError, TypeError):
            self.abort("the server said who it is in no way that can be read")
        else:
            self.info = info
            if not self.greeted.done():
                self.greeted.set_result(info)

    def _refused(self, text: str) -> None:
        """Take note of what the server refuses, and of why it will hang up."""
        logger.warning("NATS refused something: %s.", shown(text))
        if text.lower().startswith(_DENIED):
            self.denied = shown(text)
        else:
            self.explain(shown(text))

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        self.heard = True
        super().resume_reading()

    # --- out ---

    def subscribe(
        self, subject: bytes, received: "Callable[[Packet], None]", queue: bytes = b""
    ) -> bytes:
        """Have ``received`` called with each message; return the subscription's id."""
        self._last_sid += 1
        sid = b"%d" % self._last_sid
        self._subscriptions[sid] = received
        self.write(subscribe(subject, queue, sid))
        return sid

    async def settled(self) -> None:
        """Return when the server has taken all subscriptions.

        Raises :class:`TransportRefused` where it did not, :class:`NotConnected` where
        it went away.
        """
        if not await self.ping():
            raise NotConnected(self.reason or "")
        if self.denied is not None:
            raise TransportRefused(self.denied)

    def unsubscribe(self, sid: bytes) -> None:
        """End a subscription; what is on its way still comes until :meth:`forget`."""
        self.write(unsubscribe(sid))

    def forget(self, sid: bytes) -> None:
        """End a subscription, and drop what is on its way."""
        if self._subscriptions.pop(sid, None) is not None:
            self.write(unsubscribe(sid))

    def publish(
        self, subject: bytes, body: bytes, reply: bytes = b"", headers: bytes = b""
    ) -> None:
        """Send a message; on a connection that is lost nothing is sent or said.

        Raises :class:`MessageTooLarge` and ``ValueError`` for a body and for subjects
        on which the server would hang up.
        """
        if len(subject) + len(reply) > LONGEST_SUBJECTS:
            message = f"The subject {shown(subject)} is too long for NATS."
            raise ValueError(message)
        size = len(headers) + len(body)
        if size > self.max_payload:
            message = (
                f"A message of {size} bytes is over the max_payload of the NATS server "
                f"({self.max_payload})."
            )
            raise MessageTooLarge(message)
        self.write(publish(subject, reply, headers, body))

    # --- signs of life ---

    def ping(self) -> asyncio.Future[bool]:
        """Ask for a sign of life, which comes when all was taken that was written.

        The future says whether it came before the connection ended.
        """
        pong: asyncio.Future[bool] = self.loop.create_future()
        if self.lost:
            pong.set_result(False)
        else:
            self._pongs.append(pong)
            self.write(WRITTEN_PING)
        return pong

    def watch(self) -> None:
        """See that the server lives, from now on."""
        self.look()
        if not self.lost:
            self._timer = self.loop.call_later(self.ping_interval, self.watch)

    def look(self) -> None:
        """Ask for a sign of life; the server's kernel acknowledges for it all the same.

        A server of which nothing at all was heard since, when ``max_ping_out`` such
        questions are open, is given up.
        """
        if self.heard or self.deaf:
            self._unanswered = 0
        self.heard = False
        if self._unanswered >= self.max_ping_out:
            seconds = self.ping_interval * (self._unanswered + 1)
            self.abort(f"the server was silent for {seconds:g} s")
        elif not self.deaf:
            self._unanswered += 1
            self.ping()


def _hand_over(packet: Packet, received: "Callable[[Packet], None]") -> None:
    """Hand over a message; whatever is wrong with it, the others come."""
    try:
        received(packet)
    except Exception:
        subject = shown(packet.subject.decode(errors="replace"))
        logger.exception("A message on %s could not be taken.", subject)


def _answer(pong: asyncio.Future[bool], *, arrived: bool) -> None:
    if not pong.done():
        pong.set_result(arrived)
