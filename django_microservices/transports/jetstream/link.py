"""The client's half: requests as on NATS, events confirmed by JetStream."""

from collections.abc import Awaitable, Generator
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...exceptions import NoHandler, NotConnected
from ...wire.messages import UNSET, Message, new_id
from ...wire.seconds import seconds_of
from ...wire.text import shown
from ..nats.inbox import Inbox, Question
from ..nats.link import Link, body_of
from ..nats.protocol import MESSAGE_ID, is_unheard, write_headers
from ..nats.subjects import subject_of
from .api import answer_in

if TYPE_CHECKING:
    from ..base import Receive
    from ..nats.connection import Connection

# Source: ADR-51, https://github.com/nats-io/nats-architecture-and-design.
SCHEDULE, TARGET = "Nats-Schedule", "Nats-Schedule-Target"


class JetStreamLink(Link):
    """One connection of a client."""

    def __init__(
        self,
        connection: "Connection",
        receive: "Receive",
        *,
        subject_prefix: str,
        later: str,
        **options: Any,
    ) -> None:
        super().__init__(connection, receive, **options)
        self._subject_prefix = subject_prefix
        self._later = later
        self._confirms = Inbox(connection, options["inbox_prefix"])

    def publish(self, message: Message) -> Awaitable[None] | None:
        """Write a message; of an event an awaitable ends when it is stored.

        Raises what :class:`Link` raises, ``ValueError`` for a request that the stream
        would take, ``TypeError`` or ``ValueError`` for a delay that is none, and the
        awaitable :class:`NoHandler` where no stream takes the event, and what JetStream
        says where the stream does not.
        """
        if message.id is not UNSET:
            self._check_not_stored(message.pattern.route)
            return super().publish(message)
        if self.connection.lost:
            raise NotConnected(self.connection.reason or "")
        subject = self._subject_prefix.encode() + subject_of(message.pattern.route)
        headers = self.headers_for(message)
        options = message.options or {}
        headers[MESSAGE_ID] = _message_id(message, options.get("message_id"))
        if options.get("delay"):
            headers[SCHEDULE] = f"@at {_moment(options['delay'])}"
            headers[TARGET] = subject.decode()
            subject = f"{self._later}.{new_id()}".encode()
        block = write_headers(headers)
        question = self._confirms.ask(subject, body_of(message), block)
        return Stored(message.pattern.route, question)

    def _check_not_stored(self, route: str) -> None:
        prefix = self._subject_prefix
        if prefix and route.startswith(prefix):
            message = (
                f"The pattern {shown(route)!r} begins with {prefix!r}, the prefix of "
                "events: the stream would take the request, and answer it."
            )
            raise ValueError(message)


def _message_id(message: Message, given: Any) -> str:
    """Return what JetStream knows a repetition by: ids differ between patterns."""
    return new_id() if given is None else f"{message.pattern.route}/{given}"


def _moment(delay: Any) -> str:
    """Return the time in so many seconds, in the form of RFC 3339.

    Raises ``TypeError`` or ``ValueError`` for what is no time, or ends after it.
    """
    option = "options['delay']"
    seconds = seconds_of(delay, option)
    try:
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        message = f"{option}: {seconds:g} s from now is after the year {MAXYEAR}."
        raise ValueError(message) from None
    return moment.isoformat().replace("+00:00", "Z")


class Stored:
    """Waits until JetStream has stored an event."""

    __slots__ = ("_question", "_route")

    def __init__(self, route: str, question: Question) -> None:
        self._route = route
        self._question = question

    def __await__(self) -> Generator[Any, None, None]:
        packet = yield from self._question.__await__()
        if is_unheard(packet.headers):
            message = f"{shown(self._route)}: no stream of JetStream takes it."
            raise NoHandler(message)
        answer_in(packet)
