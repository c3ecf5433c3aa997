"""Redis' pub/sub, as Nest has it: its options and its two halves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from ...wire.messages import Subscription
from ...wire.patterns import EXACT, REDIS_GLOB
from ..base import Changed, Deliver, Receive, Transport
from ..tcp.tls import TLSOptions
from .address import Address, SentinelHost
from .intake import Intake
from .link import Link


class RedisTransport(Transport):
    """Nest's Redis wire (``reference/nest-wire.md`` A.4): pub/sub, which keeps nothing.

    A message reaches whoever listens at that moment. It cannot be shared: each replica
    handles each message, and answers each request; the first answer counts.

    Times are in seconds, ``max_frame_size`` in bytes, in and out. ``url`` is what
    redis-py reads, or ``redis+sentinel://host:port,host:port/name/db``; options beside
    it say what it leaves out.
    """

    server_only: ClassVar[frozenset[str]] = frozenset(
        ("retry_attempts", "retry_delay", "wildcards")
    )
    headers: ClassVar[bool] = True
    no_listener: ClassVar[bool] = True
    ends_streams: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str | None = None,
        host: str = "127.0.0.1",
        port: int = 6379,
        username: str | None = None,
        password: str | None = None,
        db: int = 0,
        tls: TLSOptions | None = None,
        sentinels: Sequence[str | SentinelHost] | None = None,
        name: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        connection_name: str = "django_microservices",
        connect_timeout: float = 5.0,
        keep_alive: float = 3.0,
        no_delay: bool = True,
        retry_attempts: int | None = None,
        retry_delay: float | None = None,
        wildcards: bool = False,
        max_frame_size: int = 1024 * 1024,
        driver_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.address = Address(
            url=url,
            host=host,
            port=port,
            username=username,
            password=password,
            db=db,
            tls=tls,
            sentinels=sentinels,
            name=name,
            sentinel_username=sentinel_username,
            sentinel_password=sentinel_password,
            connection_name=connection_name,
            connect_timeout=connect_timeout,
            keep_alive=keep_alive,
            no_delay=no_delay,
            driver_options=driver_options or {},
        )
        self.tls_options = self.address.tls  # what the checks look at
        self.retry_attempts = retry_attempts
        self.retry_delay = retry_delay
        self.wildcards = wildcards  # type: ignore[misc] # an option decides here
        self.grammar = REDIS_GLOB if wildcards else EXACT  # type: ignore[misc]
        self.max_frame_size = max_frame_size

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
