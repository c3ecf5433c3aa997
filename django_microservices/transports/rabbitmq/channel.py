"""One channel of a connection: questions with answers, messages, confirms."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from pamqp import base, commands

from ...exceptions import ConnectionLost, MicroserviceError
from .confirms import Confirms
from .errors import NOT_FOUND, BrokerClosed, copied
from .frames import content, method
from .protocol import DELIVER, Content, Settled

if TYPE_CHECKING:
    from .connection import Connection


def _unheard(_: Any) -> None:
    """Tell nobody."""


class Channel:
    """A channel; ``ended(reason)`` is called once, when it or its connection is closed.

    ``delivered`` gets the messages of its consumers, ``returned`` those that we
    published and that no queue took, ``cancelled`` is called when the broker ends a
    consumer.
    """

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.number = 0  # until it is opened
        self.delivered: Callable[[Content], None] = _unheard
        self.returned: Callable[[Content], None] = _unheard
        self.cancelled: Callable[[commands.Basic.Cancel], None] = _unheard
        self.ended: Callable[[MicroserviceError], None] = _unheard
        self.confirms: Confirms | None = None
        self.reason: MicroserviceError | None = None
        self._asked: deque[asyncio.Future[Any]] = deque()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.connection.channels.get(self.number) is self

    async def open(self, *, confirms: bool = False) -> None:
        """Open it; with ``confirms`` the broker says of each message that it has it."""
        channels = self.connection.channels
        self.number = next(n for n in count(1) if n not in channels)
        channels[self.number] = self
        await self.call(commands.Channel.Open())
        if confirms:
            await self.call(commands.Confirm.Select())
            self.confirms = Confirms(self.connection.loop)

    async def close(self) -> None:
        """Close it, and return when the broker has handled all that was sent on it."""
        if self.is_open:
            await self.call(commands.Channel.Close(200, "", 0, 0))

    def call(self, question: base.Frame) -> "asyncio.Future[Any]":
        """Send a method; the future ends with the answer, or why there is none."""
        future: asyncio.Future[Any] = self.connection.loop.create_future()
        if self.reason is not None:
            future.set_exception(copied(self.reason))
        elif self.connection.gate.lost is not None:
            future.set_exception(copied(self.connection.gate.lost))
        else:
            self._asked.append(future)
            self.connection.write(method(self.number, question))
        return future

    def send(self, start: bytes, properties: bytes, body: bytes) -> None:
        """Publish a message; ``start`` is its packed ``basic.publish``."""
        connection = self.connection
        connection.write(
            start + content(self.number, properties, body, connection.frame_max)
        )

    # --- in ---

    def received(self, item: Any) -> None:
        """Take what the broker sent on this channel."""
        kind = type(item)
        if kind is Content:
            if item.index == DELIVER:
                self.delivered(item)
            else:
                self._return(item)
        elif kind is Settled:
            if self.confirms is not None:
                self.confirms.settle(item)
        elif kind is commands.Channel.Close:
            self._closed_by_broker(item)
        elif kind is commands.Channel.Flow:
            self._flow(item)
        elif kind is commands.Basic.Cancel:
            self.cancelled(item)
        elif self._asked:
            self._answer(item)

    def _answer(self, item: base.Frame) -> None:
        if type(item) is commands.Channel.CloseOk:
            self.connection.channels.pop(self.number, None)
            answered = self._asked.pop()
            self.end(ConnectionLost("the channel was closed"))
        else:
            answered = self._asked.popleft()
        if not answered.done():
            answered.set_result(item)

    def _return(self, item: Content) -> None:
        if self.confirms is not None:
            self.confirms.returned(item)
        self.returned(item)

    def _flow(self, item: commands.Channel.Flow) -> None:
        """Have publishers wait while the broker wants nothing."""
        gate, obstacle = self.connection.gate, f"flow {self.number}"
        if item.active:
            gate.open(obstacle)
        else:
            gate.shut(obstacle)
        answer = commands.Channel.FlowOk(bool(item.active))
        self.connection.write(method(self.number, answer))

    def _closed_by_broker(self, item: commands.Channel.Close) -> None:
        self.connection.channels.pop(self.number, None)
        self.connection.write(method(self.number, commands.Channel.CloseOk()))
        self.connection.gate.open(f"flow {self.number}")
        self.end(BrokerClosed.of(item))

    def end(self, reason: MicroserviceError) -> None:
        """It is closed: fail what waits, and tell the owner. Called once."""
        self.reason = reason
        waiting = tuple(self._asked)
        self._asked.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(copied(reason))
                future.exception()  # nobody may be waiting
        if self.confirms is not None:
            self.confirms.fail(self._reason_of_publishers(len(self.confirms)))
        self.ended(reason)

    def _reason_of_publishers(self, waiting: int) -> MicroserviceError:
        """Return what the end means for messages that are not confirmed.

        The broker does not say which of them it refused: where one alone waits it was
        that one, else nobody is told that it will never be taken.
        """
        reason = self.reason
        assert reason is not None
        if not isinstance(reason, BrokerClosed) or self.connection.lost:
            return reason
        if waiting == 1 or reason.code == NOT_FOUND:
            return reason.when_publishing()
        return reason
