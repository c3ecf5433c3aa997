"""The broker's confirms: which of our messages it has, and which no queue took.

Source: https://www.rabbitmq.com/docs/confirms. Messages of a channel are counted from
one; the broker acknowledges each number, or all up to one. A message that must reach a
queue (``mandatory``) and reaches none is first returned, and then acknowledged.
"""

import asyncio
from collections import deque

from ...exceptions import MicroserviceError, NoHandler
from .afterlife import name_of
from .errors import copied
from .protocol import Content, Settled

_NOT_TAKEN = "the broker did not take the message: a queue is full, or has failed"


class Confirms:
    """Futures of the messages that a channel published, in order."""

    __slots__ = ("_loop", "_lowest", "_next", "_returned", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._next = 1
        self._lowest = 1  # nothing below it waits
        self._waiting: dict[int, tuple[asyncio.Future[None], str | None]] = {}
        self._returned: dict[str | None, deque[NoHandler]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, name: str | None = None) -> "asyncio.Future[None]":
        """Count a message that was just published; the future ends when it is safe.

        ``name`` is the ``message_id`` of one that must reach a queue: by it we know
        which one was returned. It then ends with :class:`NoHandler`.
        """
        number = self._next
        self._next = number + 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[number] = (future, name)
        return future

    def returned(self, content: Content) -> None:
        """Keep in mind that a message came back; its confirm follows."""
        why, where = content.return_reason
        error = NoHandler(f"{why}: no queue takes what goes to {where!r}")
        name = name_of(content.properties)
        self._returned.setdefault(name, deque()).append(error)

    def settle(self, settled: Settled) -> None:
        """Take the broker's word on one message, or on all up to it."""
        tag = settled.tag
        if settled.multiple:
            numbers = range(self._lowest, (tag or self._next - 1) + 1)
            self._lowest = numbers.stop
        else:
            numbers = range(tag, tag + 1)
            if tag == self._lowest:
                self._lowest = tag + 1
        for number in numbers:
            entry = self._waiting.pop(number, None)
            if entry is not None:
                self._end(*entry, accepted=settled.accepted)

    def _end(
        self, future: "asyncio.Future[None]", name: str | None, *, accepted: bool
    ) -> None:
        error: MicroserviceError | None = None
        if self._returned and name in self._returned:
            errors = self._returned[name]
            error = errors.popleft()
            if not errors:
                del self._returned[name]
        elif not accepted:
            error = MicroserviceError(_NOT_TAKEN)
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            _fail(future, error)

    def fail(self, reason: MicroserviceError) -> None:
        """Nothing more will be confirmed."""
        waiting = tuple(self._waiting.values())
        self._waiting.clear()
        self._returned.clear()
        for future, _ in waiting:
            if not future.done():
                _fail(future, copied(reason))


def _fail(future: "asyncio.Future[None]", error: MicroserviceError) -> None:
    future.set_exception(error)
    future.exception()  # nobody may be waiting
