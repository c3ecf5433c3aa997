"""TLS and Unix sockets, for us and for redis-py's own connections."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from django_microservices.exceptions import NotConnected
from django_microservices.transports.redis import RedisTransport
from tests.brokers.redis import Redis, RedisProcess

from .ends import linked, refusal

# --- Unix sockets ---


class OnASocket(RedisProcess):
    """A server that also listens on a Unix socket."""

    def command(self) -> list[str]:
        """Put it into the folder."""
        return [*super().command(), "--unixsocket", str(self.folder / "redis.sock")]


class RedisOnASocket(Redis):
    """It by its URL."""

    kind: type[RedisProcess] = OnASocket


async def test_unix_socket(start_server: Callable[..., Redis]) -> None:
    """A Unix socket does as well, for us and for redis-py."""
    server = start_server(RedisOnASocket)
    url = f"unix://{server.ours.folder}/redis.sock"
    async with linked(RedisTransport(url=url)) as calls:
        calls.send("nobody")
        assert (await calls.came(1))[0].missing
        assert await calls.link.driver.ping()


# --- TLS ---


@pytest.fixture(scope="session")
def secure(
    start_server: Callable[..., Redis], certificates: Mapping[str, str]
) -> Redis:
    """A Redis that speaks TLS and wants a certificate."""
    return start_server(Redis, password="pw", tls=certificates, mutual=True)


def own(certificates: Mapping[str, str], **more: Any) -> Any:
    """Return TLS options with a certificate of our own."""
    return {
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
        "ca": certificates["ca"],
        **more,
    }


async def test_tls(secure: Redis, certificates: Mapping[str, str]) -> None:
    """Both sides prove who they are; redis-py's connections do so too."""
    transport = RedisTransport(url=secure.url, tls=own(certificates))
    async with linked(transport) as calls:
        calls.send("nobody")
        assert (await calls.came(1))[0].missing
        assert await calls.link.driver.ping()


async def test_files_of_tls_are_read_once(
    secure: Redis, certificates: Mapping[str, str], contexts: list[Any]
) -> None:
    """However often one connects, and on however many connections."""
    transport = RedisTransport(url=secure.url, tls=own(certificates))
    for _ in range(2):
        async with linked(transport):
            pass
    assert len(contexts) == 1


async def test_tls_by_url(secure: Redis, certificates: Mapping[str, str]) -> None:
    """What redis-py reads of TLS in a URL counts as well."""
    query = "&".join(
        (
            f"ssl_ca_certs={certificates['ca']}",
            f"ssl_certfile={certificates['client_cert']}",
            f"ssl_keyfile={certificates['client_key']}",
        )
    )
    async with linked(RedisTransport(url=f"{secure.url}?{query}")) as calls:
        assert await calls.link.driver.ping()


async def test_tls_that_nobody_vouches_for(
    secure: Redis, certificates: Mapping[str, str]
) -> None:
    """A certificate that nobody vouches for is refused, and a wrong name is too."""
    error = await refusal(NotConnected, url=secure.url)
    assert "refused by TLS: " in str(error)
    other = own(certificates, server_name="other.example")
    assert "refused by TLS: " in str(
        await refusal(NotConnected, url=secure.url, tls=other)
    )


async def test_tls_that_cannot_be_set_up(secure: Redis) -> None:
    """A file that is not there is a refusal for good."""
    await refusal(url=secure.url, tls={"ca": "/no/such/file"})
    error = await refusal(url=f"{secure.url}?ssl_ca_certs=/no/such/file")
    assert "TLS cannot be set up" in str(error)


async def test_no_tls_where_it_is_spoken(secure: Redis) -> None:
    """Nor do we fall back to plain text, or Redis to it."""
    await refusal(NotConnected, port=secure.ours.port, password="pw")
