"""Settling: what the broker is told of an event, and what follows from it."""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ...dispatch.decorators import event_pattern, message_pattern
from ...exceptions import RemoteError
from ...wire.context import MessageContext
from .bench import PAUSE, Bench
from .requests import echo

Verdict = Callable[[MessageContext[Any]], None]


class SettlingCases(Bench):
    """Acknowledgement, redelivery and dead letters."""

    def judged(
        self, seen: list[int], verdicts: dict[int, Verdict]
    ) -> Callable[..., Any]:
        """Make a handler that notes each delivery, and judges the first of some."""

        @event_pattern(self.pattern("noted"))
        async def handler(data: int, context: MessageContext[Any]) -> None:
            seen.append(data)
            if seen.count(data) == 1 and data in verdicts:
                verdicts[data](context)

        return handler

    async def test_nack_brings_it_back(self) -> None:
        """What a handler gives back is delivered again, and then no more."""
        await self.comes_back_after(_nack)

    async def test_nack_with_a_delay(self) -> None:
        """It is delivered again no sooner than the handler said."""
        self.needs("acknowledges", "delays")
        loop = asyncio.get_running_loop()
        times: list[float] = []

        @event_pattern(self.pattern("noted"))
        async def noted(_: Any, context: MessageContext[Any]) -> None:
            times.append(loop.time())
            if len(times) == 1:
                context.nack(delay=0.3)

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("noted"))
            await self.until(lambda: len(times) == 2)
        assert times[1] - times[0] > 0.29

    async def test_nack_refuses_what_is_no_time(self) -> None:
        """A delay that is none is an error of the handler, and no verdict."""
        self.needs("acknowledges")
        errors: list[type[Exception]] = []

        @event_pattern(self.pattern("noted"))
        async def noted(_: Any, context: MessageContext[Any]) -> None:
            for delay in ("5", math.nan, -1, timedelta(seconds=-1)):
                try:
                    context.nack(delay=delay)  # type: ignore[arg-type]
                except (TypeError, ValueError) as error:
                    errors.append(type(error))
            context.nack(delay=timedelta())

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("noted"))
            await self.until(lambda: len(errors) >= 8)
        assert errors[:4] == [TypeError, ValueError, ValueError, ValueError]

    async def test_ack_stands_against_a_failure(self) -> None:
        """What was acknowledged is not delivered again, though its handler fails."""
        self.needs("acknowledges")

        def ack(context: MessageContext[Any]) -> None:
            context.ack()
            raise RuntimeError("a failure after the acknowledgement")

        seen: list[int] = []
        async with self.talking(self.judged(seen, {1: ack, 2: _nack})) as client:
            await client.aemit(self.pattern("noted"), 1)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen.count(2) == 2)
        assert seen.count(1) == 1

    async def test_rejected_event_is_a_dead_letter(self) -> None:
        """What a handler refuses is not delivered again, and kept with the reason."""
        self.needs("acknowledges")
        seen: list[int] = []
        reject: Verdict = lambda context: context.reject("no such order")  # noqa: E731
        async with self.talking(self.judged(seen, {1: reject, 2: _nack})) as client:
            await client.aemit(self.pattern("noted"), 1)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen.count(2) == 2)
            await self.buried("no such order")
        assert seen.count(1) == 1

    async def test_failing_event_is_tried_again(self) -> None:
        """An event whose handler fails is delivered again, until it succeeds."""
        await self.comes_back_after(_fail)

    async def test_event_that_always_fails_is_a_dead_letter(self) -> None:
        """After ``max_deliveries`` it is a dead letter, and others have passed it."""
        self.needs("acknowledges")
        most = self.max_deliveries
        seen: list[int] = []

        @event_pattern(self.pattern("noted"))
        async def noted(data: int) -> None:
            seen.append(data)
            if data == 1:
                raise RuntimeError("the poison")

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("noted"), 1)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen.count(1) == most and 2 in seen)
            await self.buried("RuntimeError")
        assert (seen.count(1), seen.count(2)) == (most, 1)

    async def test_unreadable_event_is_a_dead_letter(self) -> None:
        """An event that is not of the handler's type is not tried again."""
        self.needs("acknowledges")
        seen: list[int] = []
        async with self.talking(self.judged(seen, {2: _nack})) as client:
            await client.aemit(self.pattern("noted"), "not a number")
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen == [2, 2])
            await self.buried("PayloadError")

    async def test_unknown_event_is_a_dead_letter(self) -> None:
        """An event that arrives, but whose handler is gone, is never silently lost."""
        self.needs("acknowledges", "answers_unknown")
        self.needs_hook("dead_letters")
        async with self.serving(self.judged([], {})):
            pass
        async with self.talking(echo(self.pattern("asked"))) as client:
            await client.aemit(self.pattern("noted"), 1)
            await self.buried("no handler")

    async def test_request_is_never_tried_again(self) -> None:
        """A request is done once it is answered, if only with an error."""
        self.needs("acknowledges")
        seen: list[int] = []

        @message_pattern(self.pattern("asked"))
        async def asked(data: int) -> None:
            seen.append(data)
            raise RuntimeError("an error is an answer")

        async with self.talking(asked) as client:
            for number in (1, 2, 3):
                try:
                    await client.asend(self.pattern("asked"), number)
                except RemoteError:
                    continue
        assert seen == [1, 2, 3]

    async def test_stopped_server_gives_its_events_back(self) -> None:
        """What was in flight when a server stopped is handled by the next one."""
        self.needs("acknowledges", "durable")
        entered: list[int] = []
        seen: list[int] = []

        @event_pattern(self.pattern("noted"))
        async def hang(data: int) -> None:
            entered.append(data)
            await asyncio.Event().wait()

        async with self.calling() as client:
            async with self.serving(hang):
                for number in (1, 2):
                    await client.aemit(self.pattern("noted"), number)
                await self.until(lambda: len(entered) == 2)
            async with self.serving(self.judged(seen, {})):
                await self.until(lambda: len(seen) == 2)
        assert sorted(seen) == [1, 2]

    async def test_event_waits_for_its_server(self) -> None:
        """An event that comes while no server runs is handled by the next one, once."""
        self.needs("durable")
        seen: list[int] = []
        handler = self.judged(seen, {})
        async with self.calling() as client:
            async with self.serving(handler):
                await client.aemit(self.pattern("noted"), 1)
                await self.until(lambda: seen)
            await client.aemit(self.pattern("noted"), 2)
            async with self.serving(handler):
                await self.until(lambda: len(seen) > 1)
        assert seen == [1, 2]

    async def comes_back_after(self, verdict: Verdict) -> None:
        """See that of two events each is delivered once more, and then no more."""
        self.needs("acknowledges")
        seen: list[int] = []
        judged = self.judged(seen, {1: verdict, 2: verdict})
        async with self.talking(judged) as client:
            await client.aemit(self.pattern("noted"), 1)
            await self.until(lambda: seen.count(1) == 2)
            await client.aemit(self.pattern("noted"), 2)
            await self.until(lambda: seen.count(2) == 2)
        assert seen == [1, 1, 2, 2]

    async def buried(self, reason: str) -> None:
        """Return when there is a dead letter with this reason; where one can look."""
        if self.has_hook("dead_letters"):
            async with asyncio.timeout(self.patience):
                while not any(reason in why for why in await self.dead_letters()):  # noqa: ASYNC110
                    await asyncio.sleep(PAUSE)


def _nack(context: MessageContext[Any]) -> None:
    context.nack()


def _fail(_: MessageContext[Any]) -> None:
    raise RuntimeError("a first delivery that fails")
