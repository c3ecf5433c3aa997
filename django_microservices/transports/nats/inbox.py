"""Questions of our own to NATS, each answered once."""

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ...exceptions import ConnectionLost
from ...wire.messages import new_id
from .protocol import Packet

if TYPE_CHECKING:
    from .connection import Connection


class Inbox:
    """Where the answers come: below one subscription, each under a token."""

    def __init__(self, connection: "Connection", prefix: str) -> None:
        self.connection = connection
        self.waiting: dict[bytes, asyncio.Future[Packet]] = {}
        self._base = f"{prefix}.{new_id()}.".encode()
        self._asked = 0
        connection.subscribe(self._base + b"*", self._answered)
        connection.closed.add_done_callback(self._lost)

    def ask(self, subject: bytes, body: bytes, headers: bytes = b"") -> "Question":
        """Publish a message that is answered.

        Raises :class:`MessageTooLarge`, and the question :class:`ConnectionLost`.
        """
        connection = self.connection
        self._asked += 1
        token = self._base + b"%d" % self._asked
        connection.publish(subject, body, token, headers)
        answer: asyncio.Future[Packet] = connection.loop.create_future()
        self.waiting[token] = answer
        if connection.lost:
            self._lost()
        return Question(self, token, answer)

    def _answered(self, packet: Packet) -> None:
        answer = self.waiting.pop(packet.subject, None)
        if answer is not None and not answer.done():
            answer.set_result(packet)

    def _lost(self, _: Any = None) -> None:
        error = ConnectionLost(self.connection.reason or "")
        for answer in self.waiting.values():
            if not answer.done():  # or whoever asked was cancelled in this tick
                answer.set_exception(error)
                answer.exception()  # nobody may be waiting
        self.waiting.clear()


class Question:
    """One question: awaiting it gives the packet that answers."""

    __slots__ = ("_answer", "_inbox", "_token")

    def __init__(
        self, inbox: Inbox, token: bytes, answer: asyncio.Future[Packet]
    ) -> None:
        self._inbox = inbox
        self._token = token
        self._answer = answer

    def __await__(self) -> Generator[Any, None, Packet]:
        try:
            return (yield from self._answer)
        finally:
            self._inbox.waiting.pop(self._token, None)
