"""What is exchanged over TCP: requests, events, streams, ids."""

import asyncio
import json
from typing import Any

import pytest

from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.unreadable import UNREADABLE

from .packets import (
    answer,
    hold,
)
from .peers import Delivery, Serve, Service


@pytest.mark.parametrize("data", [1, 0, False, "", None, [], {"a": [1.5]}])
async def test_request(serve: Serve, data: Any) -> None:
    """A request is answered in one packet."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(data)
        assert await peer.read() == answer(data)


async def test_undefined(serve: Serve) -> None:
    """No payload is none, and no answer has no member."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "a", "id": 1})
        assert await peer.read() == {"isDisposed": True, "id": 1}
        assert server.service.deliveries[0].data is UNSET


async def test_event(serve: Serve) -> None:
    """An event is delivered, and nothing comes back."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "a", "data": 1})
        peer.request()
        assert await peer.read() == answer()
        event, _ = server.service.deliveries
        assert event.message.id is UNSET
        assert event.message.pattern.route == "a"


async def test_packet_without_a_pattern(serve: Serve) -> None:
    """A packet with data alone has the pattern that Nest gives it."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"data": 1, "id": "7"})
        await peer.read()
        assert server.service.deliveries[0].message.pattern.route == "undefined"


async def test_stream(serve: Serve) -> None:
    """Items come in order, and then the end."""

    def count(delivery: Delivery) -> None:
        for number in range(3):
            delivery.respond(Reply(delivery.message.id, b"%d" % number, last=False))
        delivery.answer(last=True)

    async with serve(Service(count)) as server, server.link() as calls:
        calls.send("count")
        await calls.came(4)
        assert [(r.data and bytes(r.data), r.last) for r in calls] == [
            (b"0", False),
            (b"1", False),
            (b"2", False),
            (None, True),
        ]


@pytest.mark.parametrize(
    "id_", [None, 0, 7, 1.5, "", "é😀", [], [1], {}, {"a": 1}, True, 2**70, "\ud83d"]
)
async def test_any_id(serve: Serve, id_: Any) -> None:
    """An id is echoed with its type, and takes no place for ever."""
    async with serve(limit=1) as server:
        peer = await server.peer()
        for _ in range(3):
            peer.request(1, id_)
            assert await peer.read() == answer(1, id_)
        assert server.intake.outstanding == 0
        assert not next(iter(server.intake.connections)).pending.deliveries


@pytest.mark.parametrize("id_", [b"1" * 5000, b"-1e999"])
async def test_id_out_of_range(serve: Serve, id_: bytes) -> None:
    """An id that cannot be echoed is no reason to part: it is JSON."""
    async with serve() as server:
        peer = await server.peer()
        peer.send(b'{"pattern":"a","data":1,"id":%b}' % id_)
        peer.request()
        assert await peer.read() == answer()
        assert (server.intake.dropped, len(server.service.deliveries)) == (1, 1)


async def test_number_out_of_range_beside_the_id(serve: Serve) -> None:
    """Elsewhere in the packet such a number is answered with an error."""
    async with serve() as server:
        peer = await server.peer()
        peer.send(b'{"pattern":"a","data":1,"id":"7","metadata":{"x":1e999}}')
        assert (await peer.read())["err"] == decode(UNREADABLE)
        peer.request()
        assert await peer.read() == answer()


async def test_id_twice(serve: Serve) -> None:
    """Two requests of the same id are two requests."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1)
        peer.request(2)
        first, second = await server.service.came(2)
        first.answer()
        assert await peer.read() == answer(1)
        peer.close()
        await asyncio.wait_for(second.cancelled.wait(), 10)


async def test_answers_in_any_order(serve: Serve) -> None:
    """Who is done first is answered first."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        for number in range(3):
            peer.request(number, str(number))
        for delivery in reversed(await server.service.came(3)):
            delivery.answer()
        assert [(await peer.read())["id"] for _ in range(3)] == ["2", "1", "0"]


async def test_text_beyond_the_basic_plane(serve: Serve) -> None:
    """Emoji, alone and in numbers, come back as they went."""
    text = json.dumps("é€😀" * 1000, ensure_ascii=False).encode()
    async with serve() as server, server.link() as calls:
        calls.send("a", text)
        await calls.came(1)
        assert calls[0].data is not None
        assert bytes(calls[0].data) == text


async def test_event_of_a_client_names_the_route(serve: Serve) -> None:
    """As Nest's, our client sends a request's pattern as given, an event's as text."""
    async with serve() as server, server.link() as calls:
        calls.send({"b": 1, "a": 2}, id_=UNSET)
        calls.send({"b": 1, "a": 2})
        event, request = await server.service.came(2)
        assert event.message.pattern.json == b'"{\\"a\\":2,\\"b\\":1}"'
        assert request.message.pattern.json == b'{"b":1,"a":2}'
        assert event.message.headers is None


async def test_lost_peer_cancels(serve: Serve) -> None:
    """When a peer is gone its requests are cancelled, whatever their id, not events."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        for id_ in ("a", 1, None, [1]):
            peer.request(1, id_)
        peer.send({"pattern": "a"})
        *requests, event = await server.service.came(5)
        peer.close()
        for request in requests:
            await asyncio.wait_for(request.cancelled.wait(), 10)
        assert event.outcome is None
        event.end()
        assert server.intake.outstanding == 0


async def test_wire(serve: Serve) -> None:
    """The context's wire knows the peer, also when it has gone."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        peer.request()
        first, second = await server.service.came(2)
        wire = first.message.wire
        assert wire is second.message.wire
        assert (wire.peer, wire.identity) == (peer.address, None)
        assert not wire.socket.is_closing()
        peer.close()
        await asyncio.wait_for(first.cancelled.wait(), 10)
        assert (wire.peer, wire.identity) == (peer.address, None)
