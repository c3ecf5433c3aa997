"""The server's half of Redis' streams: deliveries, requests, and its end."""

from typing import Any

import pytest

from django_microservices.transports.redis import (
    RedisStreamsWire,
)
from django_microservices.wire.messages import UNSET
from tests.transports.peers import Delivery, Service, eventually

from .ends import (
    Streams,
    dead,
    emit,
    hold,
    linked,
    nothing_pending,
    serving,
    until,
)


async def test_a_delivery(streams: Streams, name: str, spy: Any) -> None:
    """A handler knows the stream, the entry, and how often it was delivered."""
    service = Service()
    transport = streams(key_prefix="shop:")
    async with serving(transport, service, name), linked(transport) as calls:
        await emit(calls, name, b'{"a":1}', headers={"x": "y"})
        (delivery,) = await service.came(1)
        ((id_, _),) = await spy.xrange(f"shop:{name}")
        assert delivery.message.wire == RedisStreamsWire(
            f"shop:{name}", id_.decode(), 1
        )
        assert delivery.message.pattern.route == name
        assert (delivery.data, delivery.message.headers) == ({"a": 1}, {"x": "y"})
        await until(lambda: nothing_pending(spy, f"shop:{name}"))


async def test_event_of_a_stranger(streams: Streams, name: str, spy: Any) -> None:
    """What somebody else has added arrives as an object of texts."""
    service = Service()
    async with serving(streams(), service, name):
        await spy.xadd(name, {"user": "7"})
        (delivery,) = await service.came(1)
    assert delivery.data == {"user": "7"}


async def test_object_patterns(streams: Streams, name: str) -> None:
    """A stream is named by the route, in whatever order the keys are."""
    service = Service()
    async with (
        serving(streams(), service, {"b": name, "a": 1}),
        linked(streams()) as calls,
    ):
        calls.send({"a": 1, "b": name}, id_=UNSET)
        await service.came(1)


async def test_no_more_than_the_limit_at_once(streams: Streams, name: str) -> None:
    """Of several streams no more is in flight than there is room for."""
    service = Service(hold)
    names = [f"{name}.{number}" for number in range(5)]
    async with linked(streams()) as calls:
        for each in names:
            for _ in range(10):
                await emit(calls, each)
    async with serving(streams(), service, *names, limit=3) as intake:
        await eventually(lambda: intake.room.waiting)
        assert len(service.deliveries) == 3
        assert intake.free <= 0
        service.answer = Delivery.answer
        for delivery in service.deliveries:
            delivery.answer()
        await service.came(50)


async def test_replicas_share(streams: Streams, name: str, spy: Any) -> None:
    """Each event goes to one of a group, and to each group."""
    one, other, stranger = Service(), Service(), Service()
    async with (
        serving(streams(), one, name),
        serving(streams(), other, name),
        serving(streams(group="mail"), stranger, name),
        linked(streams()) as calls,
    ):
        for _ in range(50):
            await emit(calls, name)
        await stranger.came(50)
        await eventually(lambda: len(one.deliveries) + len(other.deliveries) == 50)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": "1", "headers": "[]"}, "The headers are no object."),
        ({"data": '"' + "x" * 300 + '"'}, "over max_frame_size"),
        ({"data": "1", "id": '"7"'}, "it names no channel of answers"),
        (
            {"id": "[" * 70 + "]" * 70, "reply": "dm-reply." + "0" * 20},
            "The id is none",
        ),
        ({"data": "1", "id": '"7"', "reply": "orders"}, "names no channel of answers"),
    ],
)
async def test_unreadable(
    streams: Streams, name: str, spy: Any, fields: dict[str, str], reason: str
) -> None:
    """What cannot be handled by anybody is a dead letter at once."""
    service = Service()
    async with serving(streams(max_frame_size=250), service, name):
        await spy.xadd(name, fields)
        (letter,) = await until(lambda: dead(spy, name))
    assert reason in letter[b"dm-reason"].decode()
    assert not service.deliveries


# --- requests ---


async def test_request(streams: Streams, name: str, spy: Any) -> None:
    """A request is answered by pub/sub, and acknowledged then."""
    service = Service()
    async with serving(streams(), service, name), linked(streams()) as calls:
        await calls.send(name, b"[1,2]", "7", timeout=2.0)
        (reply,) = await calls.came(1)
        assert (reply.id, bytes(reply.data)) == ("7", b"[1,2]")
        await until(lambda: nothing_pending(spy, name))
    assert service.deliveries[0].message.timeout == pytest.approx(2.0, abs=0.5)


async def test_request_that_nobody_awaits_any_more(
    streams: Streams, name: str, spy: Any
) -> None:
    """One that lay in the stream for longer than its caller waits is not handled."""
    service = Service()
    async with linked(streams()) as calls:
        await calls.send(name, b"1", "1", timeout=0.05)
        await emit(calls, f"{name}.clock")
        await until(lambda: _is_old(spy, name, 60))
        async with serving(streams(), service, name):
            await calls.send(name, b"2", "2", timeout=60.0)
            await service.came(1)
            await until(lambda: nothing_pending(spy, name))
    assert [d.message.id for d in service.deliveries] == ["2"]


async def _is_old(spy: Any, name: str, most: int) -> bool:
    """Whether the first entry is older than so many milliseconds."""
    ((id_, _),) = await spy.xrange(name, count=1)
    seconds, micros = await spy.time()
    return bool(seconds * 1000 + micros // 1000 - int(id_.split(b"-")[0]) > most)
