"""The client's half: what it sends, whom it watches, what it makes of replies."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices.exceptions import InvalidMessage, MessageTooLarge
from django_microservices.transports.tcp import extension, line, link, output
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET
from django_microservices.wire.unreadable import TOO_LARGE_ERROR

from .packets import (
    HELLO,
    LARGE,
    hold,
    stranger,
)
from .peers import Serve, Service, eventually, linked


async def test_headers(serve: Serve) -> None:
    """A client's headers arrive, those of a request with our own."""
    async with serve() as server, server.link() as calls:
        calls.send("a", headers={"x": "1"}, timeout=0.5)
        calls.send("a", timeout=0.0001)
        calls.send("a")
        calls.send("a")
        calls.send("a", id_=UNSET, headers={"x": "2"})
        headers = [d.message.headers for d in await server.service.came(5)]
        assert headers == [
            {"x": "1", "dm-peer": "1", "dm-timeout": "500"},
            {"dm-peer": "1", "dm-timeout": "1"},
            {"dm-peer": "1"},
            {"dm-peer": "1"},
            {"x": "2"},
        ]


async def test_client_cancels(serve: Serve) -> None:
    """A client tells a server of ours what nobody awaits any more."""
    async with serve(Service(hold)) as server, server.link() as calls:
        calls.link.forget("7", answered=False)
        calls.send("a")
        (delivery,) = await server.service.came(1)
        await eventually(lambda: calls.link.is_ours)
        calls.link.forget("8", answered=True)
        calls.link.forget("7", answered=False)
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        calls.link.abort("test")
        calls.link.forget("7", answered=False)


async def test_silent_server_of_ours(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of ours that hangs is found, though its kernel acknowledges."""
    monkeypatch.setattr(link, "SILENCE", 0.05)
    monkeypatch.setattr(link, "PATIENCE", 0.02)
    server, port = await stranger(free_port, json.dumps(HELLO).encode())
    async with server, linked(port) as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert "the server was silent for" in str(reason)


async def test_silent_server_that_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers our pings may be silent as long as it likes."""
    monkeypatch.setattr(link, "SILENCE", 0.2)
    monkeypatch.setattr(link, "PATIENCE", 0.1)
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        await calls.came(4)  # the answers to three pings, which nobody awaits
        assert {str(reply.id)[:8] for reply in calls[1:]} == {"dm-ping-"}


async def test_deaf_server_shows_that_it_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it does not read a ping, a server tells its peers that it lives."""
    monkeypatch.setattr(line, "MOST", 0)
    monkeypatch.setattr(extension, "STILL_ALIVE", 0.02)
    async with serve(Service(hold), limit=1) as server, server.link() as calls:
        calls.send("a")
        (first,) = await server.service.came(1)
        calls.send("b")
        await calls.came(3)
        assert {reply.id for reply in calls} == {"dm-alive"}
        first.answer()
        await server.service.came(2)


async def test_we_do_not_listen(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While we do not read, the other side's silence is ours; then its time begins."""
    monkeypatch.setattr(link, "SILENCE", 0.01)
    monkeypatch.setattr(link, "PATIENCE", 0.01)
    monkeypatch.setattr(link, "CHECK", 0.01)
    server, port = await stranger(free_port, json.dumps(HELLO).encode())
    async with server, linked(port) as calls:
        await eventually(lambda: calls.link.is_ours)
        calls.link.pause_reading()
        for _ in range(10):
            timer = calls.link._timer
            await eventually(lambda: calls.link._timer is not timer)  # noqa: B023
        assert not calls.link.lost
        calls.link.resume_reading()
        await asyncio.wait_for(calls.link.closed, 10)
        calls.link.pause_reading()
        calls.link.resume_reading()


async def test_vanished_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that acknowledges nothing is given up, whosever server it is."""
    monkeypatch.setattr(link, "CHECK", 0.01)
    gone = iter((False, False, True))
    monkeypatch.setattr(output, "has_vanished", lambda _: next(gone))
    async with serve() as server, server.link() as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason) == "the peer's host has vanished"


@pytest.mark.parametrize("text", [b"{", b"NaN", b'{"id":"7","response":NaN}'])
async def test_reply_that_is_no_json(free_port: Callable[[], int], text: bytes) -> None:
    """What is no JSON ends the connection, with the reason."""
    server, port = await stranger(free_port, text, b'{"id":"7","response":1}')
    async with server, linked(port) as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason).startswith("a reply that cannot be read: ")
        assert calls == []


async def test_reply_that_is_no_packet(free_port: Callable[[], int]) -> None:
    """JSON that is no packet is ignored and counted."""
    server, port = await stranger(free_port, b"[]", b"null", b'{"id":"7","response":1}')
    async with server, linked(port) as calls:
        await calls.came(1)
        assert calls.link.ignored == 2


async def test_reply_that_is_too_large(serve: Serve) -> None:
    """An answer that we do not take ends its own call; the others go on."""
    async with (
        serve(Service(hold)) as server,
        server.link(max_frame_size=2000) as calls,
    ):
        for id_ in ("1", "2"):
            calls.send("a", id_=id_)
        large, other = await server.service.came(2)
        large.answer(LARGE)
        other.answer()
        await calls.came(2)
        replies = {reply.id: (reply.data, reply.error) for reply in calls}
        assert replies["1"] == (None, TOO_LARGE_ERROR)
        assert bytes(replies["2"][0] or b"") == b"1"
        assert not calls.link.lost


@pytest.mark.parametrize("id_", [b'"7"', b"7"])
async def test_large_reply_that_begins_with_its_id(
    free_port: Callable[[], int], id_: bytes
) -> None:
    """Who writes the id first, as Nest does not, is understood as well."""
    text = b'{"id":%b,"response":%b}' % (id_, LARGE)
    server, port = await stranger(free_port, text)
    async with server, linked(port, max_frame_size=2000) as calls:
        (reply,) = await calls.came(1)
        assert (reply.id, reply.error) == (json.loads(id_), TOO_LARGE_ERROR)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (b'{"response":%b,"id":"7","response":%b}' % (LARGE, LARGE), {}),
        (b'{"response":%b,"id":"7"}' % LARGE, {"deserializer": lambda packet: packet}),
    ],
)
async def test_large_reply_of_an_unknown_call(
    free_port: Callable[[], int], text: bytes, options: Any
) -> None:
    """Where it is not known whose it was, the connection ends, and it is said why."""
    server, port = await stranger(free_port, text)
    async with server, linked(port, max_frame_size=2000, **options) as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert isinstance(reason, MessageTooLarge)
        await eventually(lambda: calls.link.reason)
        assert str(calls.link.reason).endswith(" is over 2000")


async def test_large_item_of_a_stream(free_port: Callable[[], int]) -> None:
    """What came before it comes before its error, and what came after it, after."""
    items = [b'{"response":%b,"id":"7"}' % item for item in (b"1", LARGE, b"2")]
    server, port = await stranger(free_port, *items)
    async with server, linked(port, max_frame_size=2000) as calls:
        errors = [reply.error for reply in await calls.came(3)]
        assert errors == [None, TOO_LARGE_ERROR, None]


@pytest.mark.parametrize("depth", [65, 1500])
@pytest.mark.parametrize("member", [b"response", b"err"])
async def test_reply_that_is_too_deep(
    free_port: Callable[[], int], member: bytes, depth: int
) -> None:
    """A reply that nests too deeply ends its own call, with what cannot be read.

    So it does where it is too deep for the decoder, which Python 3.11 is at a thousand.
    """
    deep = b"[" * depth + b"]" * depth
    server, port = await stranger(free_port, b'{"id":"7","%b":%b}' % (member, deep))
    async with server, linked(port) as calls:
        (reply,) = await calls.came(1)
        assert (reply.id, reply.last) == ("7", True)
        assert reply.data is not None
        with pytest.raises(InvalidMessage, match="Nested deeper than 64 levels"):
            decode(bytes(reply.data))


async def test_reply_with_too_large_a_number(free_port: Callable[[], int]) -> None:
    """It ends its own call, also where the rest is nothing for the fast decoder."""
    odd = b'{"response":["\\ud83d",1e999],"id":"7"}'
    server, port = await stranger(free_port, odd)
    async with server, linked(port) as calls:
        (reply,) = await calls.came(1)
        assert reply.data is not None
        with pytest.raises(InvalidMessage, match="out of range"):
            decode(bytes(reply.data))
