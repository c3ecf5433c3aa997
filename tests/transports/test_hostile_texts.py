"""Texts that are nearly JSON, or nested without end: rows 45 and 47."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from django_microservices import (
    InvalidReply,
    RemoteError,
    message_pattern,
)
from tests.endpoints.ends import calling, serving

from .hostile import (
    MB,
    UNREADABLE,
    ask,
    lives,
    served,
)
from .peers import Peer

# --- 45: what is nearly JSON ---


@pytest.mark.parametrize(
    "payload",
    [b"NaN", b"[Infinity]", b"01", b'"\x01"', b"'a'", b"{a:1}", b"[1,]", b"/**/1", b""],
)
async def test_no_json(port: int, payload: bytes) -> None:
    """A text that is no JSON ends its connection."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        assert await ask(port, text) is None
        assert await ask(port, b"\xef\xbb\xbf" + b'{"pattern":"echo","id":"1"}') is None
        await lives(port)


async def test_no_id(port: int) -> None:
    """So does an id that is no JSON."""
    async with served(port):
        assert await ask(port, b'{"pattern":"echo","data":1,"id":NaN}') is None
        await lives(port)


@pytest.mark.parametrize("id_", [b"1e999", b"1" * 5000])
async def test_id_out_of_range(port: int, id_: bytes) -> None:
    """What is JSON, but has an id that cannot be told back, is passed over."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.send(b'{"pattern":"echo","data":1,"id":' + id_ + b"}")
        peer.request(2)
        assert (await peer.read())["response"] == 2
        peer.close()


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'"\\ud83d"', "\ud83d"),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b"18446744073709551616", 2**64),
        (b"1.0", 1.0),
        (b"-0", 0),
        (b'"\\u0000"', "\0"),
        (b' [ 1 , "2" ] ', [1, "2"]),
    ],
)
async def test_unusual_json(port: int, payload: bytes, answer: Any) -> None:
    """What is JSON is read, in one way."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        assert (await ask(port, text))["response"] == answer


@pytest.mark.parametrize("payload", [b"1e999", b"[-1e999]", b"1" * 5000])
async def test_numbers_out_of_range(port: int, payload: bytes) -> None:
    """A number that nobody could hold is an error of this one message."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        error = (await ask(port, text))["err"]
        assert error["message"] == "Not readable as JSON: A number is out of range."
        await lives(port)


@pytest.mark.parametrize("text", [b"null", b"5", b'"x"', b"[]", b"{}", b'{"id":"1"}'])
async def test_no_message(port: int, text: bytes) -> None:
    """JSON that is no message is dropped and counted; the connection stays."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(text)
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 1
        peer.close()


async def test_rest_of_the_read_is_dropped(port: int) -> None:
    """What follows a text that is no JSON is not looked at."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.send(b"{", {"pattern": "echo", "data": 1, "id": "1"})
        assert await peer.ended() == b""
        peer.close()


async def test_rest_of_a_backlog_is_dropped(port: int) -> None:
    """Nor where there was so much that it had to wait."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.writer.write(b"1#{" + b'27#{"pattern":"echo","id":"1"}' * 2000)
        assert await peer.ended() == b""
        peer.close()
        await lives(port)


# --- 47: nesting ---


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Nest."""
    return opening * depth + closing * depth


@pytest.mark.parametrize("depth", [65, 1000, 1025, 100_000, 1_000_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
async def test_nesting(port: int, depth: int, brackets: tuple[bytes, bytes]) -> None:
    """Deep payloads are an error reply, never a stack that overflows."""
    opening, closing = brackets
    payload = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
    async with served(port, max_frame_size=8 * MB):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"7"}'
        packet = await ask(port, text)
        assert packet == {"err": UNREADABLE, "isDisposed": True, "id": "7"}
        await lives(port)


async def test_nesting_that_is_allowed(port: int) -> None:
    """64 levels, the packet's own among them, are echoed."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + nested(63) + b',"id":"7"}'
        assert (await ask(port, text))["response"] == json.loads(nested(63))
        text = b'{"pattern":"echo","data":' + nested(64) + b',"id":"7"}'
        assert (await ask(port, text))["err"] == UNREADABLE


@pytest.mark.parametrize("member", [b"pattern", b"id", b"metadata"])
async def test_nesting_elsewhere(port: int, member: bytes) -> None:
    """Wherever it is, it harms nobody."""
    async with served(port):
        text = b'{"data":1,"' + member + b'":' + nested(5000) + b"}"
        peer = await Peer.connect(port)
        peer.send(text)
        peer.request("after")
        with contextlib.suppress(asyncio.IncompleteReadError):
            assert (await peer.read())["response"] == "after"
        peer.close()
        await lives(port)


async def test_nesting_in_an_event(port: int) -> None:
    """A deep event is dropped and counted: nobody awaits an answer."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(b'{"pattern":"echo","data":' + nested(100) + b"}")
        peer.send(b'{"pattern":"echo","data":' + nested(5000) + b"}")
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 2
        peer.close()


async def test_nesting_beside_an_id_that_is_none(port: int) -> None:
    """What is too deep and cannot be answered, its id being no text, is dropped."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(b'{"pattern":"echo","data":' + nested(100) + b',"id":[1]}')
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 1
        peer.close()


@pytest.mark.parametrize(
    ("depth", "error", "text"),
    [
        (100, InvalidReply, "Nested deeper than 64"),
        (100_000, RemoteError, "Internal server error"),
    ],
)
async def test_nesting_in_an_answer(
    port: int, depth: int, error: type[Exception], text: str
) -> None:
    """A value that nests deeply is an error on the way back as well."""
    value: Any = []
    for _ in range(depth):
        value = [value]

    @message_pattern("deep")
    async def deep(data: Any) -> Any:
        return value

    async with serving(port, deep), calling(port) as client:
        with pytest.raises(error, match=text):
            await client.asend("deep")
