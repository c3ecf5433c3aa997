"""The options of Redis' streams, and what both halves refuse."""

from typing import Any

import pytest

from django_microservices.exceptions import (
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.redis import (
    RedisStreamsTransport,
    RedisTransport,
)
from django_microservices.wire.messages import UNSET
from tests.transports.peers import Service

from .ends import (
    Streams,
    emit,
    linked,
    serving,
)


def test_defaults() -> None:
    """Nothing is lost by default, and nothing is cut."""
    default = RedisStreamsTransport()
    assert (default.group, default.max_length) == (None, None)
    assert (default.claim_after, default.max_deliveries) == (30.0, 5)
    assert (default.from_beginning, default.keep_acknowledged) == (True, False)


def test_empty_group() -> None:
    """What could never work is refused, and the option is named."""
    with pytest.raises(ValueError, match="group: a stream is read by a group"):
        RedisStreamsTransport(group="")


async def test_server_without_a_group(streams: Streams, name: str) -> None:
    """A server needs one; a client does not."""
    with pytest.raises(TransportRefused, match="group: a server needs"):
        async with serving(streams(group=None), Service(), name):
            pass
    async with linked(streams(group=None)) as calls:
        await emit(calls, name)


@pytest.mark.parametrize("pattern", ["orders.*", "a\n", ""])
async def test_pattern_that_names_no_stream(streams: Streams, pattern: str) -> None:
    """Wildcards are refused where a server starts, and where one sends."""
    with pytest.raises(TransportRefused, match="Redis Streams cannot serve this"):
        async with serving(streams(), Service(), pattern):
            pass
    async with linked(streams()) as calls:
        with pytest.raises(ValueError, match="pattern"):
            calls.send(pattern, id_=UNSET)


async def test_key_that_is_no_stream(streams: Streams, name: str, spy: Any) -> None:
    """A key of another kind is a refusal for good, at the start and for a client."""
    await spy.set(name, "x")
    with pytest.raises(TransportRefused, match="WRONGTYPE"):
        async with serving(streams(), Service(), name):
            pass
    async with linked(streams()) as calls:
        with pytest.raises(TransportRefused, match="WRONGTYPE"):
            await emit(calls, name)


async def test_too_large_to_send(streams: Streams, name: str) -> None:
    """A payload over ``max_frame_size`` does not leave."""
    async with linked(streams(max_frame_size=10)) as calls:
        with pytest.raises(MessageTooLarge):
            calls.send(name, b'"%b"' % (b"x" * 20), UNSET)


async def test_cut_while_connecting(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost before anybody used it says so."""
    from django_microservices.transports.redis import lines

    real = lines.Lines.open

    async def open_and_cut(self: Any) -> None:
        await real(self)
        for connection in self._connections:
            connection.abort("cut")

    monkeypatch.setattr(lines.Lines, "open", open_and_cut)
    with pytest.raises(NotConnected, match="cut"):
        async with linked(streams()):
            pass
    with pytest.raises(NotConnected, match="cut"):
        async with serving(streams(), Service(), "x"):
            pass
    with pytest.raises(NotConnected, match="cut"):
        async with serving(RedisTransport(url=streams().address.url), Service(), "x"):
            pass


async def test_driver(streams: Streams, name: str) -> None:
    """Beneath each end is a client of redis-py."""
    async with (
        serving(streams(), Service(), name) as intake,
        linked(streams()) as calls,
    ):
        assert intake.address.startswith("redis://127.0.0.1:")
        for end in (intake, calls.link):
            assert await end.driver.ping()
