"""Sentinel: who is the master is asked at each connecting."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import NotConnected
from django_microservices.transports.redis import RedisTransport
from django_microservices.transports.redis.address import Address, Place
from tests.brokers.redis import Redis, RedisProcess

from .ends import linked, modern, refusal


class SentinelProcess(RedisProcess):
    """A sentinel that watches over one server as ``main``."""

    name = "sentinel"

    def __init__(self, *, watched: int) -> None:
        self.watched = watched
        super().__init__()

    def prepare(self) -> None:
        """Write what it watches; it writes what it finds."""
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"sentinel monitor main 127.0.0.1 {self.watched} 1",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 2000",
        )
        self.write("sentinel.conf", "\n".join(lines))

    def command(self) -> list[str]:
        """Run it as a sentinel."""
        return [str(self.binary), str(self.folder / "sentinel.conf"), "--sentinel"]


class SentinelServer(Redis):
    """It by its URL."""

    kind: type[RedisProcess] = SentinelProcess


async def test_failover(start_server: Callable[..., Redis]) -> None:
    """Each connecting asks who is the master, and one that died is left."""
    master, replica = start_server(Redis), start_server(Redis)
    master.execute("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    replica.execute("REPLICAOF", "127.0.0.1", master.ours.port)
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(has_replica, master):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    sentinel = start_server(SentinelServer, watched=master.ours.port)
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.ours.port}/main"
    transport = RedisTransport(url=url)
    async with linked(transport) as calls:
        assert calls.link.lines.place.port == master.ours.port
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(knows_replica, sentinel):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(master.kill)
            await calls.link.closed
    async with asyncio.timeout(60):
        assert await master_of(transport) == replica.ours.port


def has_replica(master: Redis) -> bool:
    """Whether a replica has all that its master has."""
    replica = master.execute("INFO", "replication").get("slave0", {})
    return bool(replica.get("state") == "online")


def knows_replica(sentinel: Redis) -> bool:
    """Whether a sentinel could choose another master."""
    return bool(sentinel.execute("SENTINEL", "REPLICAS", "main"))


async def master_of(transport: RedisTransport) -> int:
    """Connect as often as an end does, until the master is found that is one."""
    while True:
        try:
            async with linked(transport) as calls:
                place: Place = calls.link.lines.place
                return place.port
        except NotConnected:
            await asyncio.sleep(0.05)


async def test_sentinel_that_is_wrong(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says that it is a replica is not taken."""

    def answer(words: list[bytes]) -> bytes:
        return modern(words).replace(b"$6\r\nmaster", b"$5\r\nslave")

    async with stand_in(answer) as server:

        async def find(_: Address) -> Place:
            return Place("127.0.0.1", server.port)

        monkeypatch.setattr(Address, "_find", find)
        error = await refusal(NotConnected, sentinels=["one"], name="main")
    assert "it is a replica, whatever the sentinels say" in str(error)


async def test_sentinels_that_know_nothing(redis_server: Redis) -> None:
    """Where no sentinel knows the master the reason is said."""
    port = redis_server.ours.port
    error = await refusal(
        NotConnected, sentinels=["127.0.0.1:1", f"127.0.0.1:{port}"], name="main"
    )
    assert "main of" in str(error)
