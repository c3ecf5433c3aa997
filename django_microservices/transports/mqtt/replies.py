"""The topics on which a client awaits answers."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...exceptions import TransportRefused
from . import reasons
from .packets import Subscribe
from .topics import REPLY_SUFFIX

if TYPE_CHECKING:
    from .connection import Connection
    from .packets import Ack

IDLE = 10.0
"""Seconds after which a topic that nobody awaits an answer on is left, at least.

Nest leaves it at once, and pays with two exchanges for each request made alone."""

Send = Callable[..., Awaitable[Any] | None]


class ReplyTopic:
    """One topic; what is to be sent waits until the broker will bring its answers."""

    __slots__ = ("_held", "_send", "awaited", "is_idle", "is_ready", "name")

    def __init__(self, name: str, send: Send) -> None:
        self.name = name
        self.awaited = 0
        self.is_ready = False
        self.is_idle = False
        self._send = send
        self._held: dict[Any, tuple[asyncio.Future[Any], tuple[Any, ...]]] = {}

    def hold(self, id_: Any, *parts: Any) -> "asyncio.Future[Any]":
        """Keep a request; the future ends as that of sending it does."""
        future = asyncio.get_running_loop().create_future()
        self._held[id_] = (future, parts)
        return future

    def leave(self, id_: Any) -> None:
        """One answer less is awaited; what was not sent is not sent any more."""
        self.awaited -= 1
        if self._held and id_ in self._held:
            future, _ = self._held.pop(id_)
            future.cancel()

    def subscribed(self) -> None:
        """Send what waited."""
        self.is_ready = True
        held, self._held = self._held, {}
        for id_, (future, parts) in held.items():
            try:
                waiting = self._send(id_, *parts)
            except Exception as error:  # noqa: BLE001 - its caller gets it
                _end(future, error)
            else:
                _follow(future, waiting)

    def failed(self, error: BaseException) -> None:
        """Fail what waited."""
        held, self._held = self._held, {}
        for future, _ in held.values():
            _end(future, copy.copy(error))  # each is raised on its own


class Replies:
    """All of them."""

    def __init__(self, connection: "Connection", qos: int, send: Send) -> None:
        self._connection = connection
        self._qos = qos
        self._send = send
        self._topics: dict[str, ReplyTopic] = {}
        self._timer: asyncio.TimerHandle | None = None

    def join(self, route: str) -> ReplyTopic:
        """Return the topic for the answers of a pattern; one more is awaited there."""
        topic = self._topics.get(route) or self._subscribe(route)
        topic.awaited += 1
        topic.is_idle = False
        return topic

    def _subscribe(self, route: str) -> ReplyTopic:
        topic = self._topics[route] = ReplyTopic(route + REPLY_SUFFIX, self._send)
        answer = self._connection.subscribe(Subscribe(topic.name, self._qos))

        def answered(answer: "asyncio.Future[Ack]") -> None:
            error = _problem(topic, answer)
            if error is None:
                topic.subscribed()
                return
            self._topics.pop(route, None)
            topic.failed(error)

        answer.add_done_callback(answered)
        if self._timer is None:
            self._timer = self._connection.loop.call_later(IDLE, self._sweep)
        return topic

    def _sweep(self) -> None:
        """Leave the topics that were idle for the whole time."""
        for route, topic in tuple(self._topics.items()):
            if topic.is_idle:
                del self._topics[route]
                self._connection.unsubscribe([topic.name])
            topic.is_idle = not topic.awaited
        self._timer = None
        if self._topics:
            self._timer = self._connection.loop.call_later(IDLE, self._sweep)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def _problem(topic: ReplyTopic, answer: "asyncio.Future[Ack]") -> BaseException | None:
    if (error := answer.exception()) is not None:
        return error
    ack = answer.result()
    if ack.codes[0] < reasons.REFUSED:
        return None
    said = reasons.text_of(ack.codes[0], ack.properties)
    return TransportRefused(
        f"The broker refused the subscription to {topic.name}: {said}"
    )


def _follow(future: "asyncio.Future[Any]", waiting: Awaitable[Any] | None) -> None:
    """End a future as another one ends; what only holds writers back is not awaited."""
    if not isinstance(waiting, asyncio.Future):
        _end(future, None)
        return

    def done(other: "asyncio.Future[Any]") -> None:
        _end(future, other.exception())

    waiting.add_done_callback(done)


def _end(future: "asyncio.Future[Any]", error: BaseException | None) -> None:
    if future.done():
        return  # cancelled: nobody waits
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
