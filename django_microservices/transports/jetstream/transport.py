"""JetStream: its options and its two halves."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal

from ...exceptions import NotConnected, TransportRefused
from ...wire.messages import Subscription
from ...wire.patterns import NATS, RESERVED_PREFIX
from ...wire.ranges import Count, Range, Seconds, SecondsOrZero
from ..base import Changed, Deliver, Receive
from ..nats.inbox import Inbox
from ..nats.subjects import INBOX, Interest, check_prefix, interests, is_wide
from ..nats.transport import NATSTransport
from ..redelivery import Redelivery
from .api import API
from .consumer import Consumer
from .intake import JetStreamIntake
from .link import JetStreamLink
from .names import check_name, consumer_name
from .places import ConsumerOptions, StreamOptions, make_consumer, make_stream
from .receipts import Ledger

WEEK = 7 * 24 * 3600.0


class JetStreamTransport(NATSTransport):
    """NATS, where events are stored in a stream until each service handled them.

    An event is published to ``<subject_prefix>.<pattern>``, which ``stream`` takes
    (``subjects``). Unless it says otherwise the prefix is ``dm-<stream>``, under which
    no pattern is; ``""`` is none. Each service has a durable consumer for each pattern,
    named by ``group``. Requests go as on NATS, whose ``options`` are options here too.
    """

    server_only = NATSTransport.server_only | {
        "ack_wait",
        "dead_letters",
        "deliver_policy",
        "max_ack_pending",
        "max_age",
        "max_deliveries",
        "redelivery_delay",
        "replicas",
        "storage",
        "subjects",
    }
    acknowledges = True
    confirms = True
    durable = True
    delays = True

    def __init__(
        self,
        *,
        stream: str = "events",
        subject_prefix: str | None = None,
        subjects: Sequence[str] = (),
        storage: Literal["file", "memory"] = "file",
        replicas: Count = 1,
        max_age: SecondsOrZero = WEEK,
        dead_letters: str | None = None,
        ack_wait: Seconds = 30.0,
        max_deliveries: Count = 5,
        redelivery_delay: SecondsOrZero = 1.0,
        deliver_policy: Literal["all", "new", "last"] = "new",
        max_ack_pending: Annotated[int, Range(-1)] | None = None,
        domain: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_name("stream", stream)
        prefix = (
            f"{RESERVED_PREFIX}{stream}" if subject_prefix is None else subject_prefix
        )
        if not (prefix or subjects):
            message = "subjects: without a subject_prefix the stream needs its own."
            raise ValueError(message)
        if prefix:
            check_prefix("subject_prefix", prefix)
        self.subject_prefix = f"{prefix}." if prefix else ""
        graves = f"{stream}-dead" if dead_letters is None else dead_letters
        check_name("dead_letters", graves)
        taken = subjects or [f"{prefix}.>"]
        self.later = f"{RESERVED_PREFIX}{stream}-later"
        self.stream = StreamOptions(
            stream, taken, storage, replicas, max_age, self.later
        )
        buried = [f"{RESERVED_PREFIX}{graves}.>"]
        self.graves = StreamOptions(graves, buried, storage, replicas)
        self.consumer = ConsumerOptions(ack_wait, deliver_policy, max_ack_pending)
        self.redelivery = Redelivery(max_deliveries, redelivery_delay)
        self.max_deliveries = max_deliveries
        self.domain = domain

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002 - it is connected or not
        *,
        limit: int,
    ) -> AsyncIterator[JetStreamIntake]:
        """Subscribe and consume; raise :class:`TransportRefused` for what is wrong."""
        if not self.group:
            message = "group: JetStream's durable consumers need the service's name."
            raise TransportRefused(message)
        requests, events = self._kinds(subscriptions)
        async with self.servers.connected() as connection:
            inbox = Inbox(connection, INBOX)
            api = API(inbox, self.domain)
            ledger = Ledger(
                connection,
                inbox,
                self.redelivery,
                ack_wait=self.consumer.ack_wait,
                graves=f"{RESERVED_PREFIX}{self.graves.name}",
                make_graves=partial(make_stream, api, self.graves),
                group=self.group,
            )
            intake = JetStreamIntake(
                connection,
                deliver,
                ledger,
                limit=limit,
                inbox_prefixes=self.inbox_prefixes,
                subject_prefix=self.subject_prefix,
            )
            try:
                try:
                    async with asyncio.timeout(self.servers.connect_timeout):
                        await make_stream(api, self.stream)
                        await make_stream(api, self.graves)
                        batches = _batches(subscriptions, limit)
                        await self._consume(api, intake, events, batches)
                        await intake.listen(requests)
                except TimeoutError:
                    if connection.denied is not None:
                        raise TransportRefused(connection.denied) from None
                    message = "JetStream did not answer in time"
                    raise NotConnected(message) from None
                yield intake
            finally:
                await intake.close()

    def _kinds(
        self, subscriptions: Sequence[Subscription]
    ) -> tuple[list[Interest], list[Interest]]:
        """Return what to subscribe to for requests, and what to consume for events.

        As with Nest a request may go to the pattern of an event, and an event to that
        of a request, so all is wanted in both ways. Without a prefix both come to the
        same subjects, and a pattern has only its own.

        Raises :class:`TransportRefused` where the stream would store requests too, and
        answer them.
        """
        if self.subject_prefix:
            wanted = interests(subscriptions, self.queue)
            self._check_not_stored(wanted)
            return wanted, wanted
        kinds: dict[str, list[Subscription]] = {"request": [], "event": []}
        for subscription in subscriptions:
            kinds[subscription.kind].append(subscription)
        requests, events = (interests(kinds[k], self.queue) for k in kinds)
        self._check_not_stored(requests)
        return requests, events

    def _check_not_stored(self, wanted: list[Interest]) -> None:
        """See that the stream takes none of these.

        A pattern that begins with a wildcard has other names beside the stream's.
        """
        for subscription, subject, _, _ in wanted:
            route = subscription.pattern.route
            taken = any(NATS.overlaps(route, s) for s in self.stream.subjects)
            if taken and not (self.subject_prefix and is_wide(subject)):
                message = (
                    f"The stream {self.stream.name!r} takes {route!r}, and would "
                    "answer its requests: give it another subject_prefix, or other "
                    "subjects."
                )
                raise TransportRefused(message)

    async def _consume(
        self,
        api: API,
        intake: JetStreamIntake,
        wanted: list[Interest],
        batches: Mapping[str, int],
    ) -> None:
        """Have a consumer for each pattern."""
        for subscription, subject, _, overlaps in wanted:
            route = subscription.pattern.route
            name = consumer_name(self.group or "", route)
            filter_ = self.subject_prefix + subject.decode()
            config = self.consumer.config(name, filter_, f"{route} for {self.group}")
            await make_consumer(api, self.stream.name, config)
            consumer = Consumer(
                intake.connection,
                api,
                subscription if overlaps else None,
                stream=self.stream.name,
                name=name,
                batch=batches.get(route, 1),
                received=intake.take,
                lost=intake.lose,
            )
            intake.consume(consumer)

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002 - it is connected or not
    ) -> AsyncIterator[JetStreamLink]:
        """Connect; raise :class:`NotConnected` with the reason."""
        async with self.servers.connected() as connection:
            link = JetStreamLink(
                connection,
                receive,
                subject_prefix=self.subject_prefix,
                later=self.later,
                headers=self.headers_of_all,
                inbox_prefix=self.inbox_prefix,
            )
            await link.open()
            yield link


def _batches(subscriptions: Sequence[Subscription], limit: int) -> dict[str, int]:
    """Return for how many events each pattern asks, which has a handler of events.

    Together they ask for as many as there is room for. To the pattern of requests alone
    events are rare: one at a time.
    """
    routes = {s.pattern.route for s in subscriptions if s.kind == "event"}
    return dict.fromkeys(routes, max(1, limit // max(1, len(routes))))
