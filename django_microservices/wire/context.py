"""What a handler can know of the message that it answers."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from .codecs import decode
from .messages import UNSET, Message, new_id
from .seconds import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from typing_extensions import TypeVar as TypeVarWithDefault

    W = TypeVarWithDefault("W", default=Any)  # so that it may stand without its wire
else:
    W = TypeVar("W")

REQUEST_ID_HEADER = "dm-request-id"
LONGEST_REQUEST_ID = 128


class MessageContext(msgspec.Struct, Generic[W], eq=False, dict=True):
    """The message at hand: handed to handlers, guards, middleware and filters.

    Like Django's ``HttpRequest`` it takes attributes of your own. ``handler`` is the
    handler chosen, ``server`` the server's name in settings, ``deadline`` the time on
    the event loop's clock at which the caller gives up (or ``None``).
    """

    message: Message
    handler: Any = None
    server: str = ""
    deadline: float | None = None
    user: Any = None
    settle: "Callable[[str, float | None, str], None] | None" = None

    @property
    def pattern(self) -> str:
        """The pattern as received, as text: an object pattern in canonical form."""
        return self.message.pattern.route

    @property
    def data(self) -> Any:
        """The payload as plain Python; ``UNSET`` where there is none."""
        try:
            return self.__dict__["_data"]
        except KeyError:
            raw = self.message.data
            value = decode(raw) if isinstance(raw, bytes | msgspec.Raw) else raw
            self.__dict__["_data"] = value
            return value

    @property
    def headers(self) -> dict[str, str]:
        """Texts that travel beside the payload: ``metadata`` on Nest's own wires."""
        if self.message.headers is None:
            self.message.headers = {}
        return self.message.headers

    @property
    def message_id(self) -> Any:
        """The request's id, ``None`` for an event."""
        return None if self.message.id is UNSET else self.message.id

    @property
    def is_event(self) -> bool:
        """Whether nobody awaits an answer."""
        return self.message.id is UNSET

    @property
    def wire(self) -> W:
        """What only this wire knows."""
        wire: W = self.message.wire
        return wire

    @property
    def request_id(self) -> str:
        """The id that follows a request from HTTP through every message.

        The caller's, else the message's own id, else made here.
        """
        try:
            return str(self.__dict__["_request_id"])
        except KeyError:
            given = self.headers.get(REQUEST_ID_HEADER) or self._own_id()
            value = given if is_request_id(given) else new_id()
            self.__dict__["_request_id"] = value
            return value

    def _own_id(self) -> str:
        return "" if self.message_id is None else str(self.message_id)

    def ack(self) -> None:
        """Acknowledge now, whatever the handler's outcome will be."""
        self._settle("ack", None, "")

    def nack(self, delay: "float | timedelta | None" = None) -> None:
        """Give the message back to be delivered again, after ``delay`` seconds.

        Raises ``TypeError`` or ``ValueError`` for what is no time of at least 0, and
        then decides nothing.
        """
        seconds = None if delay is None else seconds_of(delay, "delay", zero=True)
        self._settle("retry", seconds, "")

    def reject(self, reason: str) -> None:
        """Refuse the message for good: it becomes a dead letter with ``reason``."""
        self._settle("dead", None, reason)

    def _settle(self, outcome: str, delay: float | None, reason: str) -> None:
        if self.settle is None:
            message = f"The wire of server {self.server!r} acknowledges nothing."
            raise NotImplementedError(message)
        self.settle(outcome, delay, reason)


outer_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the HTTP request, where no message is at hand."""

current: ContextVar[MessageContext[Any] | None] = ContextVar("message", default=None)


def is_request_id(text: str) -> bool:
    """Whether a text from outside may stand in headers and log records."""
    is_short = 0 < len(text) <= LONGEST_REQUEST_ID
    return is_short and text.isascii() and text.isprintable()


def current_context() -> MessageContext[Any] | None:
    """Return the context of the message being handled here, or ``None``."""
    return current.get()


def current_request_id() -> str | None:
    """Return the id that follows this request, or ``None`` outside of any."""
    context = current.get()
    return outer_request_id.get() if context is None else context.request_id
