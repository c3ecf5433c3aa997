"""Streams: items one by one, in order, to their end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from ...dispatch.decorators import message_pattern
from ...exceptions import RemoteError, RpcException, StreamOverflow
from .bench import Bench
from .requests import echo

MANY = 1000
TOO_MANY = 3000  # more than the 1,024 that a client keeps for a slow reader


async def read(items: AsyncIterator[Any], into: list[Any]) -> None:
    """Keep the items that come, also where an error comes after them."""
    async for item in items:
        into.append(item)  # noqa: PERF401 - as said


class StreamCases(Bench):
    """Streams."""

    async def test_stream_keeps_its_order(self) -> None:
        """The items of a generator arrive in order, be it sync or async."""

        @message_pattern(self.pattern("async"))
        async def on_loop(data: int) -> AsyncIterator[int]:
            for number in range(data):
                yield number

        @message_pattern(self.pattern("sync"))
        def on_thread(data: int) -> Iterator[int]:
            yield from range(data)

        async with self.talking(on_loop, on_thread) as client:
            for kind in ("async", "sync"):
                items = client.astream(self.pattern(kind), MANY)
                assert [item async for item in items] == list(range(MANY))

    async def test_streams_do_not_mix(self) -> None:
        """Two streams at once have each its own items."""

        @message_pattern(self.pattern("count"))
        async def count(data: str) -> AsyncIterator[str]:
            for number in range(20):
                yield f"{data}{number}"
                await asyncio.sleep(0)

        async with self.talking(count) as client:
            one: list[str] = []
            other: list[str] = []
            await asyncio.gather(
                read(client.astream(self.pattern("count"), "a"), one),
                read(client.astream(self.pattern("count"), "b"), other),
            )
        assert one == [f"a{number}" for number in range(20)]
        assert other == [f"b{number}" for number in range(20)]

    async def test_empty_stream(self) -> None:
        """A stream without items ends."""

        @message_pattern(self.pattern("empty"))
        async def empty(_: Any) -> AsyncIterator[int]:
            for number in range(0):
                yield number

        async with self.talking(empty) as client:
            items = client.astream(self.pattern("empty"))
            assert [item async for item in items] == []

    async def test_stream_fails_in_the_middle(self) -> None:
        """Items that came before an error stay valid, and the error travels."""

        @message_pattern(self.pattern("breaks"))
        async def breaks(_: Any) -> AsyncIterator[int]:
            yield 1
            yield 2
            raise RpcException("no more")

        found: list[int] = []
        async with self.talking(breaks) as client:
            with pytest.raises(RemoteError, match="no more"):
                await read(client.astream(self.pattern("breaks")), found)
        assert found == [1, 2]

    async def test_one_answer_is_a_stream_of_one(self) -> None:
        """A value can be read as a stream, and of a stream ``send`` gives the last."""

        @message_pattern(self.pattern("count"))
        async def count(_: Any) -> AsyncIterator[int]:
            yield 1
            yield 2

        async with self.talking(count, echo(self.pattern("echo"))) as client:
            items = client.astream(self.pattern("echo"), 7)
            assert [item async for item in items] == [7]
            assert await client.asend(self.pattern("count")) == 2

    async def test_reader_that_leaves_ends_the_stream(self) -> None:
        """A generator ends when its reader has gone, where the wire can tell."""
        self.needs("ends_streams")
        ended = asyncio.Event()

        @message_pattern(self.pattern("endless"))
        async def endless(_: Any) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
                    await asyncio.sleep(0.001)
            finally:
                ended.set()

        async with self.talking(endless) as client:
            async with aclosing(client.astream(self.pattern("endless"))) as items:
                assert await anext(items) == 1
            await self.until(ended.is_set)

    async def test_reader_that_leaves_disturbs_nobody(self) -> None:
        """After a stream that was not read to its end the client goes on."""

        @message_pattern(self.pattern("count"))
        async def count(_: Any) -> AsyncIterator[int]:
            for number in range(100):
                yield number
                await asyncio.sleep(0)

        async with self.talking(count, echo(self.pattern("echo"))) as client:
            async with aclosing(client.astream(self.pattern("count"))) as items:
                assert await anext(items) == 0
            assert await client.asend(self.pattern("echo"), 1) == 1

    async def test_slow_reader_is_told(self) -> None:
        """A reader too far behind gets ``StreamOverflow``, and others are served."""
        self.skip_where("stream_links", "a slow reader holds its sender back")
        ended = asyncio.Event()

        @message_pattern(self.pattern("flood"))
        async def flood(_: Any) -> AsyncIterator[int]:
            try:
                for number in range(TOO_MANY):
                    yield number
            finally:
                ended.set()

        async with (
            self.talking(flood, echo(self.pattern("echo"))) as client,
            aclosing(client.astream(self.pattern("flood"))) as items,
        ):
            found = [await anext(items)]
            await self.until(ended.is_set)
            assert await client.asend(self.pattern("echo"), 1) == 1
            with pytest.raises(StreamOverflow):
                await read(items, found)
        assert found == list(range(len(found)))

    async def test_slow_reader_holds_its_sender_back(self) -> None:
        """Where a stream has a link of its own, a slow reader loses nothing."""
        self.needs("stream_links")
        big, sent = "x" * 10_000, []

        @message_pattern(self.pattern("flood"))
        async def flood(_: Any) -> AsyncIterator[str]:
            for number in range(TOO_MANY):
                sent.append(number)
                yield big

        async with (
            self.talking(flood, echo(self.pattern("echo"))) as client,
            aclosing(client.astream(self.pattern("flood"))) as items,
        ):
            assert await anext(items) == big
            assert await client.asend(self.pattern("echo"), 1) == 1
            assert len(sent) < TOO_MANY
            assert len([item async for item in items]) == TOO_MANY - 1
