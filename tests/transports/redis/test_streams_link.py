"""The client's half of Redis' streams: entries, confirmations, answers."""

import asyncio
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    streams_link,
)
from django_microservices.wire.messages import UNSET
from tests.brokers.redis import Redis
from tests.transports.peers import Service, eventually

from .ends import (
    Streams,
    busy,
    emit,
    hold,
    linked,
    serving,
)


async def test_very_many_patterns(
    streams: Streams, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client remembers of patterns is bounded."""
    monkeypatch.setattr(streams_link, "_MOST_REMEMBERED", 2)
    async with linked(streams()) as calls:
        for number in range(5):
            await emit(calls, f"{name}.{number}")
        assert len(calls.link._names) == 1


async def test_an_entry(streams: Streams, name: str, spy: Any) -> None:
    """The payload stands in a field, and so do headers; ``emit`` waits for Redis."""
    async with linked(streams(key_prefix="shop:")) as calls:
        await emit(calls, name, b'{"a":1}', headers={"x": "y"})
    ((_, fields),) = await spy.xrange(f"shop:{name}")
    assert fields == {b"data": b'{"a":1}', b"headers": b'{"x":"y"}'}


async def test_who_gave_up_on_a_confirmation(
    streams: Streams, name: str, spy: Any
) -> None:
    """It is with Redis all the same."""
    async with linked(streams()) as calls:
        calls.send(name, id_=UNSET).cancel()
        await emit(calls, name)
    assert await spy.xlen(name) == 2


async def test_max_length(streams: Streams, name: str, spy: Any) -> None:
    """A client keeps the stream about as long as it is told."""
    await spy.config_set("stream-node-max-entries", 10)
    async with linked(streams(max_length=20)) as calls:
        for _ in range(100):
            await emit(calls, name)
    assert 20 <= await spy.xlen(name) <= 40


# --- answers ---


async def test_stream_of_answers(streams: Streams, name: str) -> None:
    """It has a channel of its own, and ends when nobody listens to that."""
    service = Service(hold)
    async with serving(streams(), service, name), linked(streams()) as calls:
        await calls.send(name, stream=True)
        (delivery,) = await service.came(1)
        delivery.say(b"1", last=False)
        await calls.came(1)
        calls.link.forget("7", answered=False)
        await calls.link.sub.ask("PING")
        delivery.say(b"2", last=False)
        async with asyncio.timeout(10):
            await delivery.cancelled.wait()


async def test_lost_before_redis_had_it(streams: Streams, name: str) -> None:
    """Who waits for Redis to have it is told that the connection is lost."""
    async with linked(streams()) as calls:
        request, stream = calls.send(name), calls.send(name, id_="8", stream=True)
        calls.link.forget("7", answered=True)
        for connection in (calls.link.pub, calls.link.sub):
            connection.abort("cut")
        for added in (request, stream):
            with pytest.raises(ConnectionLost, match="cut"):
                await added
        with pytest.raises(ConnectionLost, match="cut"):
            calls.send(name)


async def test_noise_on_the_channel_of_answers(streams: Streams, spy: Any) -> None:
    """What is no answer is ignored."""
    async with linked(streams()) as calls:
        await spy.publish(calls.link._channel, b"noise")
        await eventually(lambda: calls.link.ignored == 1)
        assert not calls


# --- refusals ---


async def test_client_that_may_not_listen(limited_streams: Any) -> None:
    """Without its channel of answers a client does not begin."""
    with pytest.raises(TransportRefused, match="NOPERM"):
        async with linked(limited_streams("+@all", "~*")):
            pass


async def test_redis_that_is_busy(stand_in: Any) -> None:
    """Where it cannot listen now, a client tries again later."""
    async with stand_in(busy) as server:
        with pytest.raises(NotConnected, match="refuses: BUSY"):
            async with linked(RedisStreamsTransport(port=server.port)):
                pass


async def test_client_that_may_not_add(limited_streams: Any, name: str) -> None:
    """An event that Redis refuses raises what Redis said; a stream's request too."""
    async with linked(limited_streams("+@all", "-xadd", "~*", "&dm-reply.*")) as calls:
        with pytest.raises(TransportRefused, match="NOPERM"):
            await emit(calls, name)
        with pytest.raises(TransportRefused, match="NOPERM"):
            await calls.send(name, stream=True)


async def test_full_redis(private_redis: Redis, name: str) -> None:
    """A Redis without memory refuses; that may pass."""
    transport = RedisStreamsTransport(url=private_redis.url)
    async with linked(transport) as calls:
        private_redis.execute("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NotConnected, match="OOM"):
            await emit(calls, name)
        private_redis.execute("CONFIG", "SET", "maxmemory", "0")
        await emit(calls, name)


async def test_master_that_became_a_replica(private_redis: Redis, name: str) -> None:
    """It is left, so that the next connecting finds the new master."""
    transport = RedisStreamsTransport(url=private_redis.url)
    async with linked(transport) as calls:
        private_redis.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ConnectionLost, match="READONLY"):
            await emit(calls, name)
        assert "READONLY" in str(await calls.link.closed)
