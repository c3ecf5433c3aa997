"""A call: a Message on its way, with who waits for what comes back."""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..dispatch.errors import TIMED_OUT, TIMED_OUT_ERROR
from ..exceptions import (
    InvalidReply,
    MessageTimeout,
    MessageTooLarge,
    MicroserviceError,
    NoHandler,
    NotConnected,
    RemoteError,
    StreamOverflow,
)
from ..wire.codecs import decode
from ..wire.messages import UNSET, Message, Reply
from ..wire.packets import NO_HANDLER
from ..wire.text import shown
from ..wire.unreadable import TOO_LARGE, TOO_LARGE_ERROR

if TYPE_CHECKING:
    from ..concurrency.timers import Bucket
    from .session import Session


Error = TypeVar("Error", bound=Exception)


class Waiter(Protocol):
    """Who waits for a call: a future of the loop, or a thread's waiter."""

    def set_result(self, value: Any, /) -> None:
        """Wake with a value."""

    def set_exception(self, error: BaseException, /) -> None:
        """Wake with an error."""


class Call(Message, eq=False):
    """A message that a client sends, and what became of it.

    Client middleware gets it: ``data`` is still the value then, and ``headers`` may be
    changed. ``returns`` is the type asked for, ``client`` the client's name.
    """

    client: str = ""
    returns: Any = None
    waiter: Any = None
    session: "Session | None" = None
    bucket: "Bucket | None" = None
    last: Any = UNSET
    done: bool = False

    def after(self, waited: float) -> "Call":
        """Return the call as it is published ``waited`` seconds late.

        The call itself keeps its timeout: for its error, and a stream's next items.
        """
        if self.timeout is None:
            return self
        late = copy(self)
        late.timeout = max(0.0, self.timeout - waited)
        return late

    def receive(self, reply: Reply) -> None:
        """Take one packet of the answer: of several items the last one counts."""
        data = reply.data
        if data is not None and reply.last:
            self.succeed(data)
        elif reply.error is not None or reply.missing:
            self.fail(remote_error(self, reply))
        elif not reply.last:
            self.last = data
        else:
            self.succeed(self.last)

    def succeed(self, value: Any) -> None:
        """End with a value."""
        if self.done:
            return
        self.close(answered=True)
        try:
            self.waiter.set_result(value)
        except asyncio.InvalidStateError:
            return  # cancelled in this very tick

    def fail(self, error: BaseException, *, answered: bool = True) -> None:
        """End with an error."""
        if self.done:
            return
        self.close(answered=answered)
        try:
            self.waiter.set_exception(error)
        except asyncio.InvalidStateError:
            return  # cancelled in this very tick

    def expire(self) -> None:
        """The time is up."""
        self.fail(self.timed_out(), answered=False)

    def timed_out(self) -> MicroserviceError:
        """Return the error that says so; without a link nothing was ever sent."""
        route, seconds = shown(self.pattern.route), f"within {self.timeout:g} s"
        if self.is_event:
            message = f"The wire of {self.client!r} did not take {route} {seconds}."
            return MessageTimeout(message)
        if self.session is None:
            return self.unsent()
        return MessageTimeout(f"No answer to {route} from {self.client!r} {seconds}.")

    def unsent(self) -> NotConnected:
        """Return the error of a call that found no link in time."""
        seconds = f"{self.timeout:g} s"
        return NotConnected(f"{self._whom()}: no connection within {seconds}.")

    def explained(self, error: Error) -> Error:
        """Return an error of the same kind that names the client and the pattern."""
        pattern = shown(self.pattern.route)
        return type(error)(f"{self._whom()}: {pattern}: {error}")

    def _whom(self) -> str:
        return self.client or "The other side"

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.close(answered=False)

    def close(self, *, answered: bool) -> None:
        """Forget the call everywhere; harmless when repeated."""
        if self.done:
            return
        self.done = True
        if self.bucket is not None:
            self.bucket.pop(self, None)
        session = self.session
        if session is not None:
            session.pending.pop(self.id, None)
            session.link.forget(self.id, answered=answered)
            if session.draining:
                session.stop_if_idle()


class LinkWaiter(Call, eq=False):
    """Waits for a link, so that something else can be sent on it."""

    def timed_out(self) -> NotConnected:
        """Return the error that says so."""
        return self.unsent()


class StreamCall(Call, eq=False):
    """A call whose answer is taken item by item.

    ``high_water`` items are kept at most; then ``pause`` holds the sender back, or
    where the wire cannot do so the stream overflows.
    """

    items: Any = None
    error: BaseException | None = None
    ended: bool = False
    high_water: int = 1024
    pause: Callable[[], None] | None = None
    resume: Callable[[], None] | None = None
    paused: bool = False

    def begin(self) -> None:
        """Make room for items; called on the loop."""
        self.items = deque()

    def receive(self, reply: Reply) -> None:
        """Keep an item, or end."""
        if reply.error is not None or reply.missing:
            self._finish(remote_error(self, reply))
            return
        if reply.data is not None or not reply.last:
            self.items.append(UNSET if reply.data is None else reply.data)
        if reply.last:
            self._finish(None)
            return
        if len(self.items) >= self.high_water and not self.paused:
            self._overflow()
        self._wake()

    def _overflow(self) -> None:
        if self.pause is None:
            message = f"The reader is {self.high_water} items behind the stream."
            self._finish(StreamOverflow(message), answered=False)
        else:
            self.paused = True
            self.pause()

    def succeed(self, value: Any) -> None:  # noqa: ARG002 - items come by receive()
        """End without an error."""
        self._finish(None)

    def fail(self, error: BaseException, *, answered: bool = True) -> None:
        """End with an error, after the items that came before it."""
        self._finish(error, answered=answered)

    def _finish(self, error: BaseException | None, *, answered: bool = True) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self.close(answered=answered)
            self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def take(self) -> list[Any]:
        """Return the items that are there, at least one; empty at the end.

        Raises the stream's error, and :class:`MessageTimeout` when nothing came for
        ``timeout`` seconds.
        """
        if not self.items and not self.ended:
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.timeout):
                    await self.waiter
            except TimeoutError:
                self._finish(self.timed_out(), answered=False)
        items = list(self.items)
        self.items.clear()
        if self.paused and self.resume is not None:
            self.paused = False
            self.resume()
        if not items:
            self.raise_error()
        return items

    def raise_error(self) -> None:
        """Raise the error that ended the stream, once."""
        error, self.error = self.error, None
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # the traceback would hold this frame, and the frame the error


def remote_error(call: Call, reply: Reply) -> MicroserviceError:
    """Return the exception for an error reply."""
    if reply.missing:
        return call.explained(NoHandler(NO_HANDLER))
    assert reply.error is not None
    known = _KNOWN_ERRORS.get(reply.error)
    if known is not None:
        kind, text = known
        return call.explained(kind(text))
    try:
        return RemoteError(decode(reply.error))
    except MicroserviceError as error:
        return call.explained(InvalidReply(str(error)))


_KNOWN_ERRORS: dict[bytes, tuple[type[MicroserviceError], str]] = {
    TIMED_OUT_ERROR: (MessageTimeout, TIMED_OUT),
    TOO_LARGE_ERROR: (MessageTooLarge, TOO_LARGE),
}
