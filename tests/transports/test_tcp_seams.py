"""Nest's seams: serializers, deserializers, and a framing of one's own."""

import asyncio
import json
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp.protocol import JsonSocket

from .packets import (
    answer,
    hold,
)
from .peers import Serve, Service, eventually


class Wrapped:
    """Nest's serializer and deserializer in one: the packet in an object."""

    def serialize(self, packet: Any) -> Any:
        """Wrap."""
        return {"packet": packet}

    def deserialize(self, value: Any) -> Any:
        """Unwrap."""
        return value["packet"]


WRAPPED: Any = {"serializer": Wrapped, "deserializer": Wrapped()}


async def test_serializers(serve: Serve) -> None:
    """Both ends write and read as the settings say, our extension included."""
    async with (
        serve(Service(hold), **WRAPPED) as server,
        server.link(**WRAPPED) as calls,
    ):
        calls.send("a", b"[1]")
        calls.send("b", id_="8")
        first, second = await server.service.came(2)
        assert (first.message.pattern.route, first.data) == ("a", [1])
        await eventually(lambda: calls.link.is_ours)
        calls.link.forget("8", answered=False)
        await asyncio.wait_for(second.cancelled.wait(), 10)
        first.answer()
        (reply,) = await calls.came(1)
        assert reply.data is not None
        assert (reply.id, bytes(reply.data)) == ("7", b"[1]")


async def test_serializer_as_function(serve: Serve) -> None:
    """A function will do, and what it makes is what is sent."""

    def shout(packet: Any) -> Any:
        return {**packet, "response": "X"}

    async with serve(serializer=shout) as server:
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer("X")


async def test_serializer_that_fails(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller gets the fixed error, the log the traceback."""

    def fail(packet: Any) -> Any:
        raise KeyError("s3cret")

    async with serve(serializer=fail) as server:
        peer = await server.peer()
        peer.request()
        packet = await peer.read()
        assert packet["err"] == {"status": "error", "message": "Internal server error"}
    assert "The serializer failed" in caplog.text
    assert caplog.records[0].exc_info is not None


async def test_deserializer_that_fails(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What the deserializer refuses is no message of this wire."""
    async with serve(**WRAPPED) as server:
        peer = await server.peer()
        peer.send({"other": 1})
        assert await peer.ended() == b""
    assert "the deserializer failed: KeyError('packet')" in caplog.text


async def test_deserializer_that_makes_no_packet(serve: Serve) -> None:
    """What is no packet then is dropped by a server, ignored by a client."""
    async with serve(**WRAPPED) as server, server.link(deserializer=len) as calls:
        peer = await server.peer()
        peer.send({"packet": []})
        await eventually(lambda: server.intake.dropped)
        peer.send({"packet": {"pattern": "a", "data": 1, "id": "7"}})
        assert await peer.read() == {"packet": answer()}
        calls.link.output.write(b'{"packet":{"pattern":"a","id":"7"}}')
        await eventually(lambda: calls.link.ignored)


@pytest.mark.parametrize("option", ["serializer", "deserializer"])
def test_wrong_serializer(option: str) -> None:
    """What is neither function nor has Nest's method is a wrong setting."""
    with pytest.raises(
        ImproperlyConfigured, match=r"5 is neither .* \w+serialize|5 is"
    ):
        TCPTransport(**{option: 5})  # type: ignore[arg-type]


async def later(packet: Any) -> Any:
    """Return it, but not at once."""
    return packet


class Later:
    """Nest's two seams, as Nest allows the second one to be."""

    serialize = deserialize = staticmethod(later)


class LaterCalled:
    """An object that is called."""

    async def __call__(self, packet: Any) -> Any:
        """Return it, but not at once."""


@pytest.mark.parametrize("part", [later, Later, Later(), LaterCalled()])
@pytest.mark.parametrize("option", ["serializer", "deserializer"])
def test_async_serializer(option: str, part: Any) -> None:
    """What returns a packet only later is a wrong setting."""
    with pytest.raises(ImproperlyConfigured, match=r"serialize\(\) must be a plain"):
        TCPTransport(**{option: part})


class Lines:
    """A framing of one's own: a line for each text."""

    def __init__(self, max_frame_size: int) -> None:
        self.error: str | None = None
        self.partial = False

    @staticmethod
    def write(text: bytes) -> bytes:
        """End a line."""
        return text + b"\n"

    def receive(self, data: bytes) -> list[bytes]:
        """Take whole lines."""
        if b"!" in data:
            self.error = "shouting"
            return []
        return data.splitlines()


async def test_socket_class(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Another framing replaces Nest's on both ends."""
    async with (
        serve(socket_class=Lines) as server,
        server.link(socket_class=Lines) as calls,
    ):
        calls.send("a")
        assert bytes((await calls.came(1))[0].data or b"") == b"1"
        peer = await server.peer()
        peer.writer.write(b'{"pattern":"a","data":1,"id":"7"}\n')
        assert (
            await peer.reader.readline()
            == json.dumps(answer(), separators=(",", ":")).encode() + b"\n"
        )
        peer.writer.write(b"!\n")
        await peer.ended()
    assert "shouting" in caplog.text


def test_socket_class_with_a_member_missing() -> None:
    """A framing that lacks a member is a wrong setting, and the member is named."""

    class Bad:
        error = None

        def __init__(self, limit: int) -> None:
            self.limit = limit

        write = receive = JsonSocket.write

    with pytest.raises(ImproperlyConfigured, match=r"Bad'> has no 'partial'"):
        TCPTransport(socket_class=Bad)  # type: ignore[arg-type]
