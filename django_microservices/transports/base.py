"""What every wire is: options, two methods, and flags that say what it can do."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..wire.patterns import EXACT, Grammar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from ..wire.messages import Message, Reply, Subscription
    from ..wire.status import Status

MESSAGE_OPTIONS = frozenset(
    (
        "content_type",
        "delay",
        "expiration",
        "key",
        "message_id",
        "persistent",
        "priority",
        "properties",
        "qos",
        "retain",
        "user_properties",
    )
)
"""What ``options=`` of one message may say on every wire, so that changing the wire
changes settings only: a wire to which a name means nothing ignores it."""

Respond = Callable[["Reply"], Awaitable[None] | None]
Receive = Callable[["Reply"], None]
Changed = Callable[["Status"], None]


class Delivery(Protocol):
    """What becomes of one message that was handed to the server."""

    message: "Message"
    outcome: str | None
    """``None`` until it is done: then "ack", "retry" or "dead"."""
    reason: str
    """Why it is not "ack", in a line that may be kept with a dead letter."""
    is_stream: bool
    """Whether it answers with items, for as long as it likes."""
    takes_place: bool
    """Whether it is one of the ``limit`` deliveries that there are at once."""

    @property
    def delay(self) -> float | None:
        """Seconds until it may be tried again, where the handler said so."""

    def when_done(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(delivery)`` once it is done, at once if it is.

        Called by the transport, once for each delivery: it keeps one callback.
        """

    def cancel(self) -> None:
        """Nobody wants the answer any more."""


Deliver = Callable[["Message", Respond], Delivery]


class Intake(Protocol):
    """The open half of a server: really consuming while its block is entered.

    Where messages keep their places until their dead letters are taken it may have
    ``unburied``: how many of the ``limit`` places are held by such as are refused. A
    server with no other place left is not ready.
    """

    closed: "asyncio.Future[BaseException | None]"

    @property
    def address(self) -> str:
        """Where it listens, for people."""

    @property
    def driver(self) -> Any:
        """The object beneath, for :meth:`unwrap`."""

    async def pause(self) -> None:
        """Take nothing new; return when what was accepted is answered."""


class Link(Protocol):
    """The open half of a client."""

    closed: "asyncio.Future[BaseException | None]"

    @property
    def driver(self) -> Any:
        """The object beneath, for :meth:`unwrap`."""

    def publish(self, message: "Message") -> Awaitable[None] | None:
        """Send; an awaitable ends when the wire confirms or can take more."""

    def forget(self, id_: Any, *, answered: bool) -> None:
        """The request ended, however it did; called exactly once for each."""


class Transport:
    """One wire. The constructor's keyword-only arguments are its OPTIONS.

    A transport holds options only: all live state is local to the two blocks, so one
    object can be shared, rebuilt in workers, and used on any loop. A permanent refusal
    raises :class:`~django_microservices.TransportRefused`; anything else is retried by
    the end that holds the transport.
    """

    server_only: ClassVar[frozenset[str]] = frozenset()
    client_only: ClassVar[frozenset[str]] = frozenset()

    # What the wire can do; of some an option decides, object by object.
    grammar: Grammar = EXACT
    acknowledges: bool = False
    confirms: bool = False
    headers: bool = False
    wildcards: bool = False
    shares_work: bool = False
    durable: bool = False
    delays: bool = False
    client_streams: bool = False
    answers_unknown: bool = False
    """A request that nobody handles arrives, and is answered so."""
    no_listener: bool = False
    """A request for which no server listens fails at once."""
    stream_links: bool = False
    """Each stream has a link of its own, with ``pause_reading``/``resume_reading``."""
    ends_streams: bool = False
    """A stream is ended on the server when its reader has gone."""
    listens: bool = False
    """A server binds ``host`` and ``port``, open to all whom TLS does not refuse."""
    in_process: bool = False
    """Handlers run on the caller's own loop and thread (tests)."""
    tls_option: ClassVar[str] = ""
    """The option that holds ``TLSOptions``, and the attribute that keeps them."""
    plain_hosts: "Sequence[str]" = ()
    """The hosts of brokers to which it talks without TLS."""

    message_options: ClassVar[frozenset[str]] = frozenset()
    """Names in ``options=`` of one message beside :data:`MESSAGE_OPTIONS`."""

    retry_attempts: int | None = None
    retry_delay: float | None = None

    def serve(
        self,
        subscriptions: "Sequence[Subscription]",
        deliver: Deliver,
        changed: Changed,
        *,
        limit: int,
    ) -> AbstractAsyncContextManager[Intake]:
        """Consume what ``subscriptions`` name, at most ``limit`` deliveries at once."""
        raise NotImplementedError

    def connect(
        self, receive: Receive, changed: Changed
    ) -> AbstractAsyncContextManager[Link]:
        """Connect to the other side; ``receive`` gets every reply."""
        raise NotImplementedError
