"""Redis' pub/sub, as Nest has it: its options and its two halves."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ...wire.messages import Subscription
from ...wire.patterns import EXACT, REDIS_GLOB
from ...wire.ranges import Seconds
from ..base import Changed, Deliver, Receive
from .intake import Intake
from .link import Link
from .options import RedisOptions


class RedisTransport(RedisOptions):
    """Nest's Redis wire (``reference/nest-wire.md`` A.4): pub/sub, which keeps nothing.

    A message reaches whoever listens at that moment. It cannot be shared: each replica
    handles each message, and answers each request; the first answer counts.

    ``options`` are those of :class:`RedisOptions`.
    """

    server_only = RedisOptions.server_only | {"wildcards", "max_stream_age"}
    no_listener = True

    def __init__(
        self,
        *,
        wildcards: bool = False,
        max_stream_age: Seconds | None = 3600.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.wildcards = wildcards
        self.max_stream_age = max_stream_age
        self.grammar = REDIS_GLOB if wildcards else EXACT

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002 - Redis tells nothing
        *,
        limit: int,
    ) -> AsyncIterator[Intake]:
        """Listen; entered when Redis has confirmed every subscription."""
        intake = Intake(self, deliver, limit)
        try:
            await intake.listen(subscriptions)
            yield intake
        finally:
            await intake.close()

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002 - Redis tells nothing
    ) -> AsyncIterator[Link]:
        """Connect; raise :class:`NotConnected` with the reason."""
        link = Link(self, receive)
        try:
            await link.open()
            yield link
        finally:
            await link.close()
