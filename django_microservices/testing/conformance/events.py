"""Events: to every handler once, and to nobody's harm."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from ...dispatch.decorators import event_pattern, message_pattern
from ...wire.messages import UNSET, Message
from ...wire.patterns import Pattern
from .bench import Bench
from .requests import OPTIONS, VALUES

MANY = 100


def noting(pattern: str, seen: list[Any]) -> Callable[..., Any]:
    """Make a handler of events that keeps what comes."""

    @event_pattern(pattern)
    async def handler(data: Any) -> None:
        seen.append(data)

    return handler


class EventCases(Bench):
    """Events."""

    async def test_event_runs_every_handler(self) -> None:
        """An event runs each of its handlers once, all at the same time."""
        meeting = asyncio.Barrier(2)
        ran: list[tuple[str, int]] = []

        @event_pattern(self.pattern("noted"))
        async def first(data: int) -> None:
            await meeting.wait()
            ran.append(("first", data))

        @event_pattern(self.pattern("noted"))
        async def second(data: int) -> None:
            await meeting.wait()
            ran.append(("second", data))

        async with self.talking(first, second) as client:
            await client.aemit(self.pattern("noted"), 1)
            await self.until(lambda: len(ran) >= 2)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: len(ran) >= 4)
        assert sorted(ran) == [(n, i) for n in ("first", "second") for i in (1, 2)]

    async def test_every_value_arrives_by_event(self) -> None:
        """What an event carries arrives as it was sent."""
        seen: list[str] = []

        @event_pattern(self.pattern("noted"))
        def noted(data: Any) -> None:
            seen.append(repr(data))

        async with self.talking(noted) as client:
            for value in (*VALUES, UNSET):
                await client.aemit(self.pattern("noted"), value)
            await self.until(lambda: len(seen) > len(VALUES))
        assert sorted(seen) == sorted(map(repr, (*VALUES, UNSET)))

    async def test_failing_handler_disturbs_nobody(self) -> None:
        """A handler that fails keeps neither its neighbour nor the next event away."""
        seen: list[int] = []
        failed: list[int] = []

        @event_pattern(self.pattern("noted"))
        async def fails(data: int) -> None:
            if data not in failed:
                failed.append(data)
                raise RuntimeError("a handler that fails")

        noted = noting(self.pattern("noted"), seen)

        async with self.talking(fails, noted) as client:
            for number in (1, 2):
                await client.aemit(self.pattern("noted"), number)
            await self.until(lambda: {1, 2} <= {*seen} and {1, 2} <= {*failed})

    async def test_many_events_arrive_once(self) -> None:
        """Of many events sent in a row none is lost, and none comes twice."""
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.talking(noted) as client:
            await client.aconnect()
            for number in range(MANY):
                await client.aemit(self.pattern("noted"), number)
            await self.until(lambda: len(seen) >= MANY)
        assert sorted(seen) == list(range(MANY))

    async def test_event_with_options_arrives(self) -> None:
        """An event may carry the options of every wire."""
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("noted"), 1, options=OPTIONS)
            await self.until(lambda: seen)

    async def test_kinds_meet(self) -> None:
        """As with Nest, an event runs a request's handler, and a request an event's."""
        seen: list[Any] = []

        @message_pattern(self.pattern("asked"))
        async def asked(data: Any) -> None:
            seen.append(data)

        @event_pattern(self.pattern("noted"))
        async def noted(data: Any) -> Any:
            return data

        async with self.talking(asked, noted) as client:
            await client.aemit(self.pattern("asked"), "event")
            assert await client.asend(self.pattern("noted"), "request") == "request"
            await self.until(lambda: seen == ["event"])

    async def test_unknown_event_disturbs_nobody(self) -> None:
        """An event that nobody handles is not lost with the next one."""
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("unknown"), 1)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen == [2])

    async def test_publishing_is_confirmed(self) -> None:
        """Where the wire confirms, ``emit`` has something to wait for."""
        self.needs("confirms")
        wire = self.client_transport()
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.serving(noted):
            async with wire.connect(lambda _: None, lambda _: None) as link:
                message = Message(Pattern.of(self.pattern("noted")), b"1")
                confirmed = link.publish(message)
                assert isawaitable(confirmed)
                async with asyncio.timeout(self.patience):
                    await confirmed
            await self.until(lambda: seen == [1])

    async def test_confirmed_events_outlive_their_client(self) -> None:
        """What ``emit`` has returned from is not lost when its client ends."""
        self.needs("confirms")
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.serving(noted):
            async with self.calling() as client, asyncio.TaskGroup() as group:
                for number in range(MANY):
                    group.create_task(client.aemit(self.pattern("noted"), number))
            await self.until(lambda: len(seen) >= MANY)
        assert sorted(seen) == list(range(MANY))

    async def test_event_can_be_delayed(self) -> None:
        """Where the wire delays, ``options={"delay": seconds}`` holds an event back."""
        self.needs("delays")
        loop = asyncio.get_running_loop()
        seen: list[float] = []

        @event_pattern(self.pattern("noted"))
        async def noted(_: Any) -> None:
            seen.append(loop.time())

        async with self.talking(noted) as client:
            begun = loop.time()
            await client.aemit(self.pattern("noted"), options={"delay": 0.3})
            await self.until(lambda: seen)
        assert seen[0] - begun > 0.29
