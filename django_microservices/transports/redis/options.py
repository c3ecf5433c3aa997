"""What both wires of Redis are told: where it is, and how to log in there."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...wire.ranges import Count, CountOrZero, Port, Seconds, SecondsOrZero
from ..base import Transport
from ..tls import TLSOptions
from .address import Address, SentinelHost


class RedisOptions(Transport):
    """A transport through a Redis, whatever it does there.

    Times are in seconds, ``max_frame_size`` in bytes, in and out. ``url`` is what
    redis-py reads, or ``redis+sentinel://host:port,host:port/name/db``; options beside
    it say what it leaves out.
    """

    server_only: ClassVar[frozenset[str]] = frozenset(("retry_attempts", "retry_delay"))
    headers = True
    ends_streams = True
    tls_option = "tls"

    def __init__(
        self,
        *,
        url: str | None = None,
        host: str = "127.0.0.1",
        port: Port = 6379,
        username: str | None = None,
        password: str | None = None,
        db: CountOrZero = 0,
        tls: TLSOptions | None = None,
        sentinels: Sequence[str | SentinelHost] | None = None,
        name: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        connection_name: str = "django_microservices",
        connect_timeout: Seconds = 5.0,
        keep_alive: SecondsOrZero = 3.0,
        no_delay: bool = True,
        retry_attempts: CountOrZero | None = None,
        retry_delay: SecondsOrZero | None = None,
        max_frame_size: Count = 1024 * 1024,
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
        self.tls = self.address.tls
        self.plain_hosts = _hosts(self.address) if self.tls is None else ()
        self.retry_attempts = retry_attempts
        self.retry_delay = retry_delay
        self.max_frame_size = max_frame_size


def _hosts(address: Address) -> Sequence[str]:
    """Return the hosts that are asked first, none where it is a Unix socket."""
    if address.masters:
        return [host for host, _ in address.masters]
    return () if address.path else (address.host,)
