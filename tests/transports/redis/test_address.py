"""From options to connections: URLs, passwords, TLS, Unix sockets, Sentinel."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.exceptions import NotConnected
from django_microservices.transports.redis import RedisTransport
from django_microservices.transports.redis.address import Address, Place
from tests.brokers.redis import Redis, RedisProcess

from .ends import linked, modern, refusal

# --- options ---


def address(**options: Any) -> Address:
    """Make the address that a transport has with these options."""
    return RedisTransport(**options).address


def test_defaults() -> None:
    """Like Nest's: this machine, Redis' own port, nobody's password."""
    default = address()
    assert str(default) == "redis://127.0.0.1:6379"
    assert (default.username, default.password, default.db) == (None, None, 0)
    assert default.tls is None


@pytest.mark.parametrize(
    ("url", "place", "more"),
    [
        ("redis://cache", ("cache", 6379), {}),
        ("redis://cache:7000/3", ("cache", 7000), {"db": 3}),
        ("redis://:p%40ss@[::1]:7000", ("::1", 7000), {"password": "p@ss"}),
        ("redis://me:pw@cache", ("cache", 6379), {"username": "me", "password": "pw"}),
        ("rediss://cache", ("cache", 6379), {"tls": {}}),
        ("unix:///run/redis.sock?db=2", ("/run/redis.sock", 0), {"db": 2}),
        ("redis://cache?db=4", ("cache", 6379), {"db": 4}),
    ],
)
def test_url(url: str, place: tuple[str, int], more: dict[str, Any]) -> None:
    """A URL says what redis-py reads in it."""
    found = address(url=url)
    assert found._place == place
    assert {name: getattr(found, name) for name in more} == more


def test_options_beside_a_url() -> None:
    """A password and a user that stand beside the URL count; so do TLS options."""
    found = address(
        url="rediss://you:no@cache", username="me", password="pw", tls={"ca": "x"}
    )
    assert (found.username, found.password, found.tls) == ("me", "pw", {"ca": "x"})


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("cache", 1), "redis://cache:1"),
        (Place("::1", 1), "redis://[::1]:1"),
        (Place("/run/x.sock"), "unix:///run/x.sock"),
    ],
)
def test_place_for_people(place: Place, text: str) -> None:
    """A place is shown as a URL without secrets."""
    assert str(place) == text


@pytest.mark.parametrize("url", ["http://a", "redis://a:port", "a:6379", "", "redis"])
def test_wrong_url(url: str) -> None:
    """Anything else is an error that shows the forms."""
    with pytest.raises(ImproperlyConfigured, match=r"url: .* is none of redis://"):
        address(url=url)


def test_wrong_url_keeps_its_secret() -> None:
    """What stands in front of the host is not shown."""
    with pytest.raises(ImproperlyConfigured) as caught:
        address(url="http://user:s3cret@a:1")
    assert "s3cret" not in str(caught.value)


def test_connection_name_with_a_space() -> None:
    """Redis refuses it, and so do we."""
    with pytest.raises(ValueError, match="connection_name: 'a b' has a space"):
        address(connection_name="a b")


@pytest.mark.parametrize(
    "options",
    [
        {"sentinels": ["one", "two:7000", {"host": "three"}], "name": "main"},
        {"url": "redis+sentinel://one,two:7000,three/main"},
    ],
)
def test_sentinels(options: dict[str, Any]) -> None:
    """Sentinels are named one by one, or in a URL."""
    found = address(**options)
    assert found.masters == [("one", 26379), ("two", 7000), ("three", 26379)]
    assert found.name == "main"
    assert "main of" in str(found)


def test_sentinel_url() -> None:
    """It has a user, a database and TLS, like any other."""
    found = address(url="rediss+sentinel://me:p%2Fw@one:7000/ma%20in/2")
    assert (found.masters, found.name, found.db) == ([("one", 7000)], "ma in", 2)
    assert (found.username, found.password, found.tls) == ("me", "p/w", {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sentinels": ["one"]}, "the one needs the other"),
        ({"name": "main"}, "the one needs the other"),
        ({"url": "redis+sentinel://one"}, "the one needs the other"),
        ({"sentinels": [":1"], "name": "main"}, "':1' is not of the form 'host:port'"),
        ({"sentinels": ["a:b"], "name": "main"}, "'a:b' is not of the form"),
    ],
)
def test_wrong_sentinels(options: dict[str, Any], says: str) -> None:
    """What lacks a part is refused."""
    with pytest.raises(ImproperlyConfigured, match=says):
        address(**options)


# --- logging in ---


async def test_user_and_database(start_server: Callable[..., Redis]) -> None:
    """We log in, choose the database, and have a name that an operator sees."""
    server = start_server(Redis, password="s3cret")
    server.execute("ACL", "SETUSER", "me", "on", ">mine", "allcommands", "allchannels")
    url = f"{server.url}/1"
    transport = RedisTransport(
        url=url, username="me", password="mine", connection_name="orders"
    )
    async with linked(transport) as calls:
        driver = calls.link.driver
        assert await driver.client_getname() == "orders"
        ours = [c for c in await driver.client_list() if c["name"] == "orders"]
        assert {(c["user"], c["db"]) for c in ours} == {("me", "1")}
        assert len(ours) == 3
    assert "WRONGPASS" in str(await refusal(url=url, password="wrong"))
    assert "NOAUTH" in str(await refusal(port=server.ours.port))


async def test_database_that_is_not_there(redis_server: Redis) -> None:
    """That will not come by waiting either."""
    error = await refusal(url=redis_server.url, db=99)
    assert "DB index is out of range" in str(error)


class WithoutAuth(RedisProcess):
    """A server on which somebody has done away with AUTH."""

    def command(self) -> list[str]:
        """Rename it to nothing."""
        return [*super().command(), "--rename-command", "AUTH", ""]


class RedisWithoutAuth(Redis):
    """It by its URL."""

    kind: type[RedisProcess] = WithoutAuth


async def test_password_is_not_echoed(start_server: Callable[..., Redis]) -> None:
    """Redis says with what an unknown command was called: we do not."""
    url = start_server(RedisWithoutAuth).url
    text = str(await refusal(url=url, password="s3cret"))
    assert "unknown command" in text
    assert "s3cret" not in text


# --- servers that are not as they should be ---


@pytest.mark.parametrize("text", ["LOADING Redis is loading", "BUSY running a script"])
async def test_redis_that_is_not_ready(stand_in: Any, text: str) -> None:
    """A server that is busy will be ready: that is no refusal."""
    async with stand_in(lambda _: f"-{text}\r\n".encode()) as server:
        assert text in str(await refusal(NotConnected, port=server.port))


async def test_redis_that_hangs_up(stand_in: Any) -> None:
    """One that has too many clients says so and hangs up."""
    text = b"-ERR max number of clients reached\r\n"
    async with stand_in(lambda _: text) as server:
        error = await refusal(NotConnected, port=server.port)
    assert "max number of clients" in str(error)


async def test_no_redis(stand_in: Any) -> None:
    """Nor is something else that answers one."""
    async with stand_in(lambda _: b"HTTP/1.1 400 Bad Request\r\n") as server:
        assert "Protocol error" in str(await refusal(NotConnected, port=server.port))


async def test_mute_redis(stand_in: Any) -> None:
    """A server that says nothing is left after ``connect_timeout``."""
    async with stand_in(lambda _: b"") as server:
        error = await refusal(NotConnected, port=server.port, connect_timeout=0.05)
    assert str(error) == f"redis://127.0.0.1:{server.port} did not answer in time"


async def test_nobody_there(free_port: Callable[[], int]) -> None:
    """The reason is said as the system does."""
    port = free_port()
    error = await refusal(NotConnected, port=port)
    assert str(error) == f"redis://127.0.0.1:{port}: Connection refused"


async def test_connecting_can_be_cancelled(stand_in: Any) -> None:
    """What was opened is closed."""
    entered = asyncio.Event()

    def answer(_: Any) -> bytes:
        entered.set()
        return b""

    async with stand_in(answer) as server:
        task = asyncio.ensure_future(refusal(port=server.port))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("hello", "counts_all"),
    [
        (b"-ERR unknown command `HELLO`\r\n", True),
        (b"*2\r\n$4\r\nmode\r\n$7\r\ncluster\r\n", False),
    ],
)
async def test_hello(stand_in: Any, hello: bytes, counts_all: bool) -> None:  # noqa: FBT001
    """An old server knows no HELLO; that of a cluster counts its own clients only."""

    def answer(words: list[bytes]) -> bytes:
        return hello if words[0] == b"HELLO" else modern(words)

    async with (
        stand_in(answer) as server,
        linked(RedisTransport(port=server.port)) as calls,
    ):
        assert calls.link.pub.counts_all is counts_all


@pytest.mark.parametrize("no_delay", [True, False])
@pytest.mark.parametrize("keep_alive", [3.0, 0.0])
@pytest.mark.parametrize("knows_idle", [True, False])
async def test_socket_options(
    redis_server: Redis,
    no_delay: bool,  # noqa: FBT001
    keep_alive: float,
    knows_idle: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nagle's algorithm and keep-alive are as the options say, where they can be."""
    if not knows_idle:
        monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    transport = RedisTransport(
        url=redis_server.url, no_delay=no_delay, keep_alive=keep_alive
    )
    async with linked(transport) as calls:
        sock = calls.link.pub.transport.get_extra_info("socket")
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        kept = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert (bool(found), bool(kept)) == (no_delay, bool(keep_alive))
