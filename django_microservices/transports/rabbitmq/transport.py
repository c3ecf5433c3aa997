"""RabbitMQ: its options and its two halves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, TypedDict

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from ...wire.patterns import AMQP
from ...wire.ranges import Count, Range, Seconds, SecondsOrZero
from ...wire.status import Status
from ..base import Changed, Deliver, Receive, Transport
from ..redelivery import Redelivery
from ..tls import ClientContext, TLSOptions
from .address import URL, read_address
from .connecting import Route, connect
from .connection import Manners
from .frames import LONGEST
from .intake import Intake
from .link import Link
from .methods import MOST_PREFETCHED
from .names import DIRECT_REPLY_TO, beside, binding_key
from .outgoing import MESSAGE_OPTIONS, check_headers
from .topology import (
    DEAD_LETTER_EXCHANGE,
    FANOUT,
    TOPIC,
    QueueOptions,
    Topology,
    queue_arguments,
)

URL_OF_NEST = "amqp://localhost"
HEARTBEAT = 5.0
FOR_EVER = -1
EXCHANGE = "amq.topic"
"""The topic exchange that every broker has."""


class ConnectionOptions(TypedDict, total=False):
    """``socket_options["connection_options"]``: what the broker is told of us."""

    client_properties: dict[str, Any]


class SocketOptions(TypedDict, total=False):
    """``socket_options``, Nest's name; times are in seconds."""

    heartbeat_interval_in_seconds: SecondsOrZero
    reconnect_time_in_seconds: SecondsOrZero
    connection_options: ConnectionOptions


class RabbitMQTransport(Transport):
    """Nest's RabbitMQ wire (``reference/nest-wire.md`` A.7), with delivery of our own.

    Times are in seconds, sizes in bytes. ``nest_delivery`` restores Nest's defaults:
    nothing is acknowledged, kept on disk or limited, and nothing returns.
    """

    server_only: ClassVar[frozenset[str]] = frozenset(
        (
            "allowed_reply_queues",
            "consumer_tag",
            "dead_letter_queue",
            "group",
            "is_global_prefetch_count",
            "max_connection_attempts",
            "max_deliveries",
            "no_ack",
            "prefetch_count",
            "redelivery_delay",
        )
    )
    client_only: ClassVar[frozenset[str]] = frozenset(
        ("confirms", "headers", "mandatory", "persistent", "reply_queue")
    )
    grammar = AMQP
    wildcards = True
    headers = True
    shares_work = True
    durable = True
    delays = True
    ends_streams = True
    tls_option = "tls_options"
    message_options: ClassVar[frozenset[str]] = MESSAGE_OPTIONS

    def __init__(
        self,
        *,
        url: str | None = None,
        urls: Sequence[str | URL] | None = None,
        group: str | None = None,
        queue: str | None = None,
        queue_options: QueueOptions | None = None,
        no_assert: bool = False,
        exchange: str | None = None,
        exchange_type: str = TOPIC,
        exchange_arguments: Mapping[str, Any] | None = None,
        routing_key: str | None = None,
        wildcards: bool = False,
        no_ack: bool | None = None,
        prefetch_count: Annotated[int, Range(0, MOST_PREFETCHED)] | None = None,
        is_global_prefetch_count: bool = False,
        consumer_tag: str = "",
        max_deliveries: Count = 5,
        redelivery_delay: SecondsOrZero = 1.0,
        dead_letter_queue: str | None = None,
        allowed_reply_queues: Sequence[str] = (),
        reply_queue: str = DIRECT_REPLY_TO,
        persistent: bool | None = None,
        confirms: bool = True,
        mandatory: bool | None = None,
        headers: Mapping[str, str] | None = None,
        nest_delivery: bool = False,
        max_message_size: Count = 1024 * 1024,
        connect_timeout: Seconds = 5.0,
        max_connection_attempts: Annotated[int, Range(FOR_EVER)] | None = None,
        socket_options: SocketOptions | None = None,
        tls_options: TLSOptions | None = None,
        driver_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.queue = queue
        self.max_message_size = max_message_size
        self.redelivery = Redelivery(max_deliveries, redelivery_delay)
        self.consumer_tag = consumer_tag
        self.is_global_prefetch_count = is_global_prefetch_count
        self.reply_queue = reply_queue
        self.allowed_replies = frozenset(name.encode() for name in allowed_reply_queues)
        self.headers_of_all = dict(headers or {})
        check_headers(self.headers_of_all)
        for_ever = max_connection_attempts == FOR_EVER
        self.retry_attempts = None if for_ever else max_connection_attempts
        sockets: SocketOptions = socket_options or {}
        self.retry_delay = sockets.get("reconnect_time_in_seconds")
        self.tls_options = tls_options
        self.route = Route(
            [read_address(given) for given in _urls(url, urls)],
            Manners(
                sockets.get("heartbeat_interval_in_seconds", HEARTBEAT),
                max_message_size,
                sockets.get("connection_options", {}).get("client_properties", {}),
            ),
            connect_timeout,
            ClientContext(tls_options or {}),
            (tls_options or {}).get("server_name"),
            driver_options or {},
        )
        self.plain_hosts = [one.host for one in self.route.addresses if not one.tls]
        # What Nest does unless told otherwise: nothing is acknowledged, kept on disk,
        # limited, or returned.
        self.no_ack = nest_delivery if no_ack is None else no_ack
        self.acknowledges = not self.no_ack
        self.confirms = confirms
        unlimited = 0 if nest_delivery else None
        self.prefetch_count = unlimited if prefetch_count is None else prefetch_count
        self.persistent = False if nest_delivery and persistent is None else persistent
        self.names_events = not nest_delivery
        self._mandatory = False if nest_delivery and mandatory is None else mandatory
        self._dead_letter_queue = dead_letter_queue
        self.topology = Topology(
            queue=(group or "") if queue is None else queue,
            queue_options=queue_options or {},
            asserts_queue=not (no_assert or (queue_options or {}).get("no_assert")),
            exchange=_exchange(exchange, queue, exchange_type, wildcards=wildcards),
            exchange_type=exchange_type,
            exchange_arguments=exchange_arguments or {},
            routing_key=routing_key,
        )
        # What lost connections left to the next ones, by the end that it is for.
        self.left: dict[Deliver, Intake] = {}
        self.shares_work = bool(self.topology.queue)
        self.sends_to_queue = bool(queue) and not wildcards and exchange_type != FANOUT
        # Through an exchange nothing arrives that no server is bound for; a queue that
        # a client declares is there, and keeps what it is sent.
        self.answers_unknown = bool(queue or not self.topology.exchange)
        self.no_listener = not (self.sends_to_queue and self.topology.asserts_queue)
        self._check()

    def _check(self) -> None:
        """Refuse what could never work."""
        for address in self.route.addresses:
            if self.tls_options is not None and not address.tls:
                message = f"tls_options: {address} speaks no TLS, 'amqps' does."
                raise ImproperlyConfigured(message)
        names = {
            "queue": self.topology.queue,
            "exchange": self.topology.exchange,
            "routing_key": self.topology.routing_key,
            "consumer_tag": self.consumer_tag,
            "reply_queue": self.reply_queue,
            "dead_letter_queue": self._dead_letter_queue,
        }
        for option, name in names.items():
            if name is not None and len(name.encode()) > LONGEST:
                message = f"{option}: {name:.64} has more than {LONGEST} bytes."
                raise ValueError(message)

    def dead_letters_of(self, queue: str) -> str:
        """Name the queue of a queue's dead letters; with none the broker has its own.

        One that is private is gone before anybody looks, and has none.
        """
        if self._dead_letter_queue is not None:
            return self._dead_letter_queue
        arguments = queue_arguments(self.topology.queue_options)
        if not self.topology.queue or DEAD_LETTER_EXCHANGE in arguments:
            return ""
        return beside(queue, ".dead")

    @property
    def returns_requests(self) -> bool:
        """Whether a request that no queue takes comes back."""
        return self._mandatory is not False

    @property
    def returns_events(self) -> bool:
        """Whether an event that no queue takes is an error.

        To the queue of one service it is, to whom it may concern it is not.
        """
        return self.sends_to_queue if self._mandatory is None else self._mandatory

    # --- the two halves ---

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,
        *,
        limit: int,
    ) -> AsyncIterator[Intake]:
        """Consume; entered when the broker has our consumer.

        Raises :class:`TransportRefused` for what it refuses for good (credentials, a
        queue that exists with other arguments), else :class:`NotConnected`.
        """
        try:
            keys = [binding_key(subscription.pattern) for subscription in subscriptions]
        except ValueError as error:
            raise TransportRefused(str(error)) from None
        async with AsyncExitStack() as stack:
            consuming = await connect(self.route, _unheard)
            stack.push_async_callback(consuming.close)
            answering = partial(connect, self.route, changed)
            publishing = await answering()
            stack.push_async_callback(publishing.close)
            intake = Intake(
                self, consuming, publishing, answering, deliver, limit=limit
            )
            stack.push_async_callback(intake.close)
            await intake.open(keys)
            yield intake

    @asynccontextmanager
    async def connect(self, receive: Receive, changed: Changed) -> AsyncIterator[Link]:
        """Connect; raises as :meth:`serve` does."""
        if not (self.sends_to_queue or self.topology.exchange):
            message = "exchange: without one a client needs the name of a queue."
            raise TransportRefused(message)
        connection = await connect(self.route, changed)
        link = Link(self, connection, receive)
        try:
            await link.open()
            yield link
        finally:
            await link.close()


def _unheard(_: Status) -> None:
    """Tell nobody: this connection does not publish, and is never blocked."""


def _urls(url: str | None, urls: Sequence[str | URL] | None) -> Sequence[str | URL]:
    if url is not None and urls is not None:
        message = "url: it stands for one of the urls; give one of both."
        raise ImproperlyConfigured(message)
    given = urls if url is None else [url]
    if given is not None and not given:
        message = "urls: none is given."
        raise ImproperlyConfigured(message)
    return given or [URL_OF_NEST]


def _exchange(
    given: str | None, queue: str | None, exchange_type: str, *, wildcards: bool
) -> str:
    """Name the exchange: Nest's ``wildcards`` take the queue's name for it."""
    if given is not None:
        return given
    if exchange_type != TOPIC and not wildcards:
        message = f"exchange: name the one that is of exchange_type {exchange_type!r}."
        raise ImproperlyConfigured(message)
    return queue if wildcards and queue else EXCHANGE
