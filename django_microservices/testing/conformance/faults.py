"""Faults: links that break, brokers that are away, and bytes that mean nothing."""

import asyncio
from typing import Any

import pytest

from ...dispatch.decorators import message_pattern
from ...exceptions import ConnectionLost, NotConnected
from ...wire.status import Status
from .bench import Bench
from .events import noting
from .requests import echo

MALFORMED = [
    b"",
    b" ",
    b"{",
    b'{"pattern":',
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"no json at all",
    b"NaN",
    b"\xff\xfe\x00",
    b'{"id":1}',
    b'{"id":null,"data":1}',
    b'{"data":"\xff"}',
    b'{"pattern":{},"data":{},"id":{"a":[]}}',
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b'{"data":' + b"[" * 10_000 + b"]" * 10_000 + b',"id":"deep"}',
]


class FaultCases(Bench):
    """Faults. Each needs a hook that makes it."""

    @pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:20]))
    async def test_malformed_message_harms_nobody(self, body: bytes) -> None:
        """Bytes that are no message disturb neither the server nor its next one."""
        self.needs_hook("send_raw")
        pattern = self.pattern("echo")
        async with self.serving(echo(pattern)) as server, self.calling() as client:
            assert await client.asend(pattern, 1) == 1
            await self.send_raw(pattern, body)
            assert await self.answered(client, pattern, 2) == 2
            assert server.is_ready

    async def test_pending_calls_end_with_their_link(self) -> None:
        """A call whose link is lost fails at once, and says so."""
        self.needs_hook("break_links")
        entered: list[int] = []

        @message_pattern(self.pattern("hang"))
        async def hang(_: Any) -> None:
            entered.append(1)
            await asyncio.Event().wait()

        async with self.talking(hang) as client:
            call = asyncio.ensure_future(
                client.asend(self.pattern("hang"), timeout=None)
            )
            await self.until(lambda: entered)
            await self.break_links()
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(call, self.patience)

    async def test_both_ends_come_back(self) -> None:
        """After a loss both ends are back by themselves: for requests and events."""
        self.needs_hook("break_links")
        seen: list[int] = []
        pattern = self.pattern("echo")
        noted = noting(self.pattern("noted"), seen)

        async with (
            self.serving(echo(pattern), noted) as server,
            self.calling() as client,
        ):
            assert await client.asend(pattern, 1) == 1
            await self.break_links()
            await self.until(lambda: server.is_ready)
            assert await self.answered(client, pattern, 2) == 2
            await client.aemit(self.pattern("noted"), 3)
            await self.until(lambda: seen == [3])

    async def test_server_starts_before_its_broker(self) -> None:
        """A server whose broker is away starts when it comes, and calls say so."""
        self.needs_hook("stop_broker", "start_broker")
        pattern = self.pattern("echo")
        server = self.server(echo(pattern))
        async with self.calling() as client, asyncio.TaskGroup() as group:
            await self.stop_broker()
            serving = group.create_task(self._serve_until_answered(server, client))
            try:
                await self.until(lambda: server.status == Status.RECONNECTING)
                with pytest.raises(NotConnected):
                    await client.asend(pattern, 1, timeout=self.patience)
                assert not server.is_ready
            finally:
                await self.start_broker()
            assert await serving == 2

    async def _serve_until_answered(self, server: Any, client: Any) -> Any:
        async with self.running(server):
            return await self.answered(client, self.pattern("echo"), 2)
