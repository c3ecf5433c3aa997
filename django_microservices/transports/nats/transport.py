"""NATS: its options and its two halves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ...wire.messages import Subscription
from ...wire.patterns import NATS
from ...wire.ranges import CountOrZero, Seconds
from ..base import Changed, Deliver, Receive, Transport
from .credentials import Credentials
from .intake import Intake
from .link import Link
from .protocol import write_headers
from .servers import NATSTLSOptions, Servers
from .subjects import INBOX, check_prefix, check_queue, group_name, interests


class NATSTransport(Transport):
    """Nest's NATS wire (``reference/nest-wire.md`` A.5): subjects are the patterns.

    Times are in seconds. ``servers`` are tried in random order unless
    ``no_randomize``; ``url`` stands for one. ``queue`` is the queue group of the
    server's handlers, ``group`` unless it says otherwise, and ``""`` is none.
    """

    server_only = frozenset(("queue", "reply_prefixes"))
    client_only = frozenset(("headers",))
    grammar = NATS
    headers = True
    wildcards = True
    shares_work = True
    no_listener = True
    ends_streams = True
    tls_option = "tls"

    def __init__(
        self,
        *,
        url: str | None = None,
        servers: str | Sequence[str] = "nats://localhost:4222",
        group: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        user_credentials: str | None = None,
        nkey_seed: str | None = None,
        tls: NATSTLSOptions | None = None,
        headers: Mapping[str, str] | None = None,
        inbox_prefix: str = INBOX,
        reply_prefixes: Sequence[str] = (),
        no_echo: bool = False,
        no_randomize: bool = False,
        ignore_cluster_updates: bool = False,
        connect_timeout: Seconds = 5.0,
        ping_interval: Seconds = 2.5,
        max_ping_out: CountOrZero = 2,
        driver_options: Mapping[str, Any] | None = None,
    ) -> None:
        given = servers if url is None else url
        self.servers = Servers(
            [given] if isinstance(given, str) else given,
            Credentials(
                user=user,
                password=password,
                token=token,
                user_credentials=user_credentials,
                nkey_seed=nkey_seed,
            ),
            tls=tls,
            name=group if name is None else name,
            no_echo=no_echo,
            no_randomize=no_randomize,
            ignore_cluster_updates=ignore_cluster_updates,
            connect_timeout=connect_timeout,
            ping_interval=ping_interval,
            max_ping_out=max_ping_out,
            driver_options=driver_options,
        )
        self.tls = tls
        self.plain_hosts = self.servers.plain_hosts
        self.queue = group_name(group) if queue is None else queue
        check_queue(self.queue)
        # Where everybody gets every message, processes share nothing.
        self.shares_work = bool(self.queue)
        self.group = group
        self.headers_of_all = dict(headers or {})
        write_headers(self.headers_of_all)
        self.inbox_prefix = inbox_prefix
        self.inbox_prefixes = (INBOX, inbox_prefix, *reply_prefixes)
        for prefix in self.inbox_prefixes:
            check_prefix("inbox_prefix", prefix)

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002 - it is connected or not
        *,
        limit: int,
    ) -> AsyncIterator[Intake]:
        """Subscribe; raise :class:`TransportRefused` where that can never work."""
        wanted = interests(subscriptions, self.queue)
        async with self.servers.connected() as connection:
            intake = Intake(
                connection, deliver, limit=limit, inbox_prefixes=self.inbox_prefixes
            )
            await intake.listen(wanted)
            yield intake

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002 - it is connected or not
    ) -> AsyncIterator[Link]:
        """Connect; raise :class:`NotConnected` with the reason."""
        async with self.servers.connected() as connection:
            link = Link(
                connection,
                receive,
                headers=self.headers_of_all,
                inbox_prefix=self.inbox_prefix,
            )
            await link.open()
            yield link
