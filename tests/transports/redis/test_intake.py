"""The server's half of pub/sub: wildcards, bodies, room, and its end."""

import asyncio
import json
from typing import Any

import pytest

from django_microservices.exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.redis import (
    RedisTransport,
    RedisWire,
)
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.patterns import EXACT, REDIS_GLOB
from django_microservices.wire.unreadable import TOO_LARGE
from tests.brokers.redis import Redis
from tests.transports.peers import Delivery, Service, eventually

from .ends import (
    busy,
    hold,
    is_silent,
    linked,
    serving,
    until,
)


async def test_a_handler_knows_the_channel(wire: Any, name: str) -> None:
    """The message has the channel, the headers, and the time that is left."""
    service = Service()
    async with serving(wire(), service, name), linked(wire()) as calls:
        calls.send(name, timeout=2.0)
        (delivery,) = await service.came(1)
    message = delivery.message
    assert message.wire == RedisWire(name)
    assert (message.pattern.route, message.timeout) == (name, 2.0)
    assert message.subscription is None


# --- wildcards ---


def test_wildcards_are_an_option() -> None:
    """Without it a pattern is a name, whatever is in it."""
    plain, wild = RedisTransport(), RedisTransport(wildcards=True)
    assert (plain.wildcards, plain.grammar) == (False, EXACT)
    assert (wild.wildcards, wild.grammar) == (True, REDIS_GLOB)


async def test_copies_say_what_brought_them(wire: Any, name: str, spy: Any) -> None:
    """Redis makes a copy for each subscription that matches, and each says which."""
    service = Service()
    patterns = (f"{name}.*", f"{name}.a", f"{name}.[ab]")
    async with serving(wire(wildcards=True), service, *patterns):
        await spy.publish(f"{name}.a", '{"pattern":"x","data":1}')
        deliveries = await service.came(3)
        found = [d.message.subscription for d in deliveries]
        assert {each.pattern.route for each in found if each} == set(patterns)
        assert {d.message.pattern.route for d in deliveries} == {f"{name}.a"}
        await spy.publish(f"{name}.c", '{"pattern":"x","data":1}')
        message = (await service.came(4))[3].message
    assert (message.subscription, message.wire) == (None, RedisWire(f"{name}.c"))


async def test_a_name_without_wildcards_is_taken_at_its_word(
    wire: Any, name: str, spy: Any
) -> None:
    """With the option off an asterisk is a letter, as with Nest."""
    service = Service()
    async with serving(wire(), service, f"{name}.*"):
        assert await spy.publish(f"{name}.a", '{"data":1}') == 0
        assert await spy.publish(f"{name}.*", '{"data":1}') == 1
        await service.came(1)


async def test_very_many_channels(
    wire: Any, name: str, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of channels is bounded, and all are served."""
    module = "django_microservices.transports.redis.intake._MOST_REMEMBERED"
    monkeypatch.setattr(module, 2)
    service = Service()
    async with serving(wire(wildcards=True), service, f"{name}.*") as intake:
        for number in range(5):
            await spy.publish(f"{name}.{number}", '{"data":1}')
        await service.came(5)
        assert len(intake._channels) == 2


# --- bodies ---


async def test_foreign_bodies(wire: Any, name: str, spy: Any) -> None:
    """What is no packet is an event: JSON as it is, anything else as text."""
    service = Service()
    async with serving(wire(), service, name):
        for body in ('{"id":1,"a":2}', "[1]", "plain text"):
            await spy.publish(name, body)
        deliveries = await service.came(3)
    assert [d.data for d in deliveries] == [{"id": 1, "a": 2}, [1], "plain text"]
    assert all(d.message.is_event for d in deliveries)


async def test_own_replies_are_no_events(wire: Any, name: str) -> None:
    """What a wildcard brings from the reply channels is dropped."""
    service = Service()
    block = serving(wire(wildcards=True), service, f"{name}.*")
    async with block as intake, linked(wire()) as calls:
        calls.send(f"{name}.a")
        await calls.came(1)
        await eventually(lambda: intake.dropped == 1)
    assert len(service.deliveries) == 1


async def test_too_large_for_the_server(wire: Any, name: str) -> None:
    """A message over ``max_frame_size`` is not handled, and its caller is told."""
    service = Service()
    small = wire(max_frame_size=100)
    async with serving(small, service, name) as intake, linked(wire()) as calls:
        calls.send(name, b'"%b"' % (b"x" * 200), "1")
        (reply,) = await calls.came(1)
        calls.send(name, b'"%b"' % (b"x" * 200), UNSET)
        await eventually(lambda: intake.dropped == 1)
    assert json.loads(reply.error)["message"] == TOO_LARGE
    assert not service.deliveries


async def test_too_large_to_send(wire: Any, name: str) -> None:
    """Nor does it leave a client, or a server."""
    service = Service(hold)
    small = wire(max_frame_size=200)
    async with serving(small, service, name), linked(small) as calls:
        with pytest.raises(MessageTooLarge):
            calls.send(name, b'"%b"' % (b"x" * 200))
        calls.send(name)
        (delivery,) = await service.came(1)
        with pytest.raises(MessageTooLarge):
            delivery.say(b'"%b"' % (b"x" * 200))
        with pytest.raises(InvalidMessage):
            delivery.say(b"[" * 70 + b"]" * 70)


# --- room ---


async def test_reading_pauses_where_there_is_no_room(
    wire: Any, name: str, spy: Any
) -> None:
    """What waits for room is bounded: Redis keeps the rest, and it comes later."""
    service = Service(hold)
    async with serving(wire(), service, name, limit=2) as intake:
        for number in range(200):
            await spy.publish(name, b'{"data":%d}' % number)
            await asyncio.sleep(0)
        await eventually(lambda: intake.sub.deaf)
        assert len(service.deliveries) == 2
        service.answer = Delivery.answer
        for delivery in service.deliveries:
            delivery.answer()
        await service.came(200)
        assert not intake.sub.deaf
    assert [d.data for d in service.deliveries] == list(range(200))


# --- the end ---


async def test_pause_finishes_what_came(wire: Any, name: str, spy: Any) -> None:
    """A draining server hears nothing new, and answers what it has."""
    service = Service(hold)
    block = serving(wire(), service, name, limit=1)
    async with block as intake, linked(wire()) as calls:
        for id_ in "123":
            calls.send(name, id_=id_)
        (first,) = await service.came(1)
        pausing = asyncio.create_task(intake.pause())
        await until(lambda: is_silent(spy, name))
        service.answer = Delivery.answer
        first.answer()
        await pausing
        assert {reply.id for reply in await calls.came(3)} == {"1", "2", "3"}
        calls.send(name, id_="4")
        assert (await calls.came(4))[3].missing


async def test_stop_drops_what_waits(
    wire: Any, name: str, spy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What had no room when the server stopped is lost, and counted."""
    service = Service(hold)
    async with serving(wire(), service, name, limit=1) as intake:
        for _ in range(2):
            await spy.publish(name, '{"data":1}')
        await eventually(lambda: intake.room.waiting)
    assert intake.dropped == 1
    assert "Dropped 1 messages" in caplog.text


async def test_lost_connection(
    wire: Any, name: str, spy: Any, redis_server: Redis
) -> None:
    """Either end says so, with the reason; what was asked for is cancelled."""
    service = Service(hold)
    async with serving(wire(), service, name) as intake, linked(wire()) as calls:
        calls.send(name)
        (delivery,) = await service.came(1)
        await spy.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(10):
            for closed in (intake.closed, calls.link.closed):
                assert str(await closed) == "Redis closed the connection"
        assert delivery.cancelled.is_set()
        delivery.respond(Reply("7", b"1"))  # says nothing to nobody
        with pytest.raises(ConnectionLost, match="Redis closed the connection"):
            calls.send(name)


async def test_driver(wire: Any, name: str, redis_server: Redis) -> None:
    """Beneath each end is a client of redis-py, with a connection of its own."""
    async with serving(wire(), Service(), name) as intake, linked(wire()) as calls:
        assert redis_server.url.endswith(intake.address.removeprefix("redis://"))
        for end in (intake, calls.link):
            assert await end.driver.ping()


async def test_server_that_may_not_subscribe(limited: Any, name: str) -> None:
    """That is a refusal for good."""
    with pytest.raises(TransportRefused, match="refuses: NOPERM"):
        async with serving(limited("+@all"), Service(), name):
            pass


async def test_redis_that_is_busy_while_we_subscribe(stand_in: Any, name: str) -> None:
    """That passes, and is no refusal for good."""
    async with stand_in(busy) as server:
        with pytest.raises(NotConnected, match="refuses: BUSY"):
            async with serving(RedisTransport(port=server.port), Service(), name):
                pass
