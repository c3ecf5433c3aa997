"""Redis' streams: durable work, shared by the replicas of a service."""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ...exceptions import TransportRefused
from ...wire.messages import Subscription, new_id
from ...wire.ranges import Count, Seconds, SecondsOrZero
from ..base import Changed, Deliver, Receive
from .holdings import Holdings
from .options import RedisOptions
from .streams_intake import StreamsIntake
from .streams_link import StreamsLink


class RedisStreamsTransport(RedisOptions):
    """Messages that Redis keeps until a service has handled them; not Nest's wire.

    Each pattern is a stream, each service a consumer group: of an event every service
    gets one copy, and its replicas share them. What a handler fails at is tried again,
    in the end it is a dead letter in ``<stream>.dead``; what a dead replica had is
    claimed by the others after ``claim_after``. Answers to requests come by pub/sub.
    Needs Redis 6.2.

    A group that is new begins with what its stream has, so that nothing is lost that
    was sent before the first start. Entries are removed once all groups have
    acknowledged them, unless ``keep_acknowledged``; ``max_length`` removes the oldest,
    read or not. ``options`` are those of :class:`RedisOptions`.
    """

    server_only = RedisOptions.server_only | {
        "group",
        "from_beginning",
        "claim_after",
        "max_deliveries",
        "redelivery_delay",
        "keep_acknowledged",
    }
    client_only = frozenset(("max_length",))
    acknowledges = True
    confirms = True
    shares_work = True
    durable = True

    def __init__(
        self,
        *,
        group: str | None = None,
        key_prefix: str = "",
        from_beginning: bool = True,
        claim_after: Seconds = 30.0,
        max_deliveries: Count = 5,
        redelivery_delay: SecondsOrZero = 1.0,
        max_length: Count | None = None,
        keep_acknowledged: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if group == "":
            message = "group: a stream is read by a group, and that has a name."
            raise ValueError(message)
        self.group = group
        self.key_prefix = key_prefix
        self.from_beginning = from_beginning
        self.claim_after = claim_after
        self.max_deliveries = max_deliveries
        self.redelivery_delay = redelivery_delay
        self.max_length = max_length
        self.keep_acknowledged = keep_acknowledged
        # What handlers still worked on when a connection was lost, for the next one of
        # the same server.
        self._left: dict[Deliver, Holdings] = {}

    def new_consumer(self) -> str:
        """Return a name for one consumer of the group: each time that we connect."""
        return f"{socket.gethostname()}-{os.getpid()}-{new_id()[:8]}"

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002 - Redis tells nothing
        *,
        limit: int,
    ) -> AsyncIterator[StreamsIntake]:
        """Read; entered when the group has its place in every stream."""
        if self.group is None:
            message = "group: a server needs the name of its consumer group."
            raise TransportRefused(message)
        intake = StreamsIntake(self, deliver, limit)
        if deliver in self._left:
            intake.holdings.adopt(self._left.pop(deliver))
        try:
            await intake.listen(subscriptions)
            yield intake
        finally:
            await intake.close()
            if intake.holdings.held:
                self._left[deliver] = intake.holdings

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002 - Redis tells nothing
    ) -> AsyncIterator[StreamsLink]:
        """Connect; raise :class:`NotConnected` with the reason."""
        link = StreamsLink(self, receive)
        try:
            await link.open()
            yield link
        finally:
            await link.close()
