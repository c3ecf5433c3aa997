"""Headers: texts that travel beside the payload, and what we put there ourselves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ...dispatch.decorators import event_pattern, message_pattern
from ...exceptions import MicroserviceError
from ...wire.context import MessageContext
from ...wire.headers import PEER_HEADER, TIMEOUT_HEADER
from .bench import Bench

Mark = Callable[[str], Callable[[Callable[..., Any]], Callable[..., Any]]]

HEADERS = {
    "tenant": "acme",
    "X-Mixed-Case": "kept",
    "empty": "",
    "unicode": "Grüße 🚀",
    "punctuation": ' a: b; "c" \\ ',
}
BREAKING = [{"a": "b\r\ninjected: yes"}, {"a\r\ninjected: yes\r\nb": "c"}, {"": "x"}]


def keeping(mark: Mark, pattern: str, seen: dict[str, str]) -> Callable[..., Any]:
    """Make a handler, marked for requests or events, that keeps the headers."""

    @mark(pattern)
    async def handler(_: Any, context: MessageContext[Any]) -> None:
        seen.update(context.headers)

    return handler


class HeaderCases(Bench):
    """Headers."""

    async def test_headers_of_a_request(self) -> None:
        """Headers of a request arrive as they were sent, and no value changes."""
        self.needs("headers")
        seen: dict[str, str] = {}
        asked = keeping(message_pattern, self.pattern("asked"), seen)

        async with self.talking(asked) as client:
            await client.asend(self.pattern("asked"), headers=HEADERS)
        assert {name: seen.get(name) for name in HEADERS} == HEADERS

    async def test_headers_of_an_event(self) -> None:
        """So do those of an event."""
        self.needs("headers")
        seen: dict[str, str] = {}
        noted = keeping(event_pattern, self.pattern("noted"), seen)

        async with self.talking(noted) as client:
            await client.aemit(self.pattern("noted"), headers=HEADERS)
            await self.until(lambda: seen)
        assert {name: seen.get(name) for name in HEADERS} == HEADERS

    @pytest.mark.parametrize("headers", BREAKING, ids=repr)
    async def test_headers_cannot_be_injected(self, headers: dict[str, str]) -> None:
        """A line break in a header is refused, or arrives as it is: never as two."""
        self.needs("headers")
        seen: dict[str, str] = {}
        asked = keeping(message_pattern, self.pattern("asked"), seen)

        async with self.talking(asked) as client:
            try:
                await client.asend(self.pattern("asked"), headers=headers)
            except (ValueError, MicroserviceError):
                assert seen == {}
            else:
                assert headers.items() <= seen.items()
            await client.asend(self.pattern("asked"))
        assert "injected" not in seen

    async def test_request_id_travels(self) -> None:
        """A request id goes with every call that a handler makes."""
        self.needs("headers")
        async with self.calling() as inner:

            @message_pattern(self.pattern("outer"))
            async def outer(_: Any, context: MessageContext[Any]) -> list[str]:
                return [context.request_id, await inner.asend(self.pattern("inner"))]

            @message_pattern(self.pattern("inner"))
            async def of_inner(_: Any, context: MessageContext[Any]) -> str:
                return context.request_id

            async with self.talking(outer, of_inner) as client:
                first, second = await client.asend(self.pattern("outer"))
        assert first == second

    async def test_patience_travels(self) -> None:
        """A handler knows how long its caller will wait."""
        self.needs("headers")

        @message_pattern(self.pattern("asked"))
        async def asked(_: Any, context: MessageContext[Any]) -> float | None:
            if context.deadline is None:
                return None
            return context.deadline - asyncio.get_running_loop().time()

        async with self.talking(asked) as client:
            assert 0 < await client.asend(self.pattern("asked"), timeout=7) <= 7
            assert await client.asend(self.pattern("asked"), timeout=None) is None

    async def test_handler_ends_with_its_caller(self) -> None:
        """A handler is cancelled when the time of its caller is up."""
        self.needs("headers")
        cancelled = asyncio.Event()

        @message_pattern(self.pattern("hang"))
        async def hang(_: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with self.talking(hang) as client:
            with pytest.raises(MicroserviceError):
                await client.asend(self.pattern("hang"), timeout=0.1)
            await self.until(cancelled.is_set)

    async def test_nobodys_patience_ends_an_event(self) -> None:
        """An event has no deadline, though its sender passes a request's headers on."""
        self.needs("headers")
        deadlines: list[float | None] = []

        @event_pattern(self.pattern("noted"))
        async def noted(_: Any, context: MessageContext[Any]) -> None:
            deadlines.append(context.deadline)

        async with self.calling() as inner:

            @message_pattern(self.pattern("asked"))
            async def asked(_: Any, context: MessageContext[Any]) -> None:
                await inner.aemit(self.pattern("noted"), headers=context.headers)

            async with self.talking(asked, noted) as client:
                await client.asend(self.pattern("asked"))
                await self.until(lambda: deadlines)
        assert deadlines == [None]

    async def test_patience_of_another_is_not_passed_on(self) -> None:
        """What a caller says of itself counts, not headers that it passes on."""
        self.needs("headers")

        @message_pattern(self.pattern("asked"))
        async def asked(_: Any, context: MessageContext[Any]) -> float | None:
            return context.deadline

        headers = {TIMEOUT_HEADER: "5000", PEER_HEADER: "0"}
        async with self.talking(asked) as client:
            call = client.asend(self.pattern("asked"), headers=headers, timeout=None)
            assert await asyncio.wait_for(call, self.patience) is None

    async def test_request_waits_no_longer_than_its_caller(self) -> None:
        """A request that waits for its turn does not run for a caller that has gone."""
        self.needs("headers")
        self.skip_where("in_process", "a caller runs the handlers itself")
        gate = asyncio.Event()
        ran: list[int] = []

        @message_pattern(self.pattern("asked"))
        async def asked(data: int) -> int:
            ran.append(data)
            await gate.wait()
            return data

        async def wait_in_vain(data: int, seconds: float) -> None:
            with pytest.raises(MicroserviceError):
                await client.asend(self.pattern("asked"), data, timeout=seconds)

        async with (
            self.talking(asked, concurrency=1) as client,
            asyncio.TaskGroup() as group,
        ):
            first = group.create_task(client.asend(self.pattern("asked"), 1))
            await self.until(lambda: ran)
            await wait_in_vain(2, 0.05)
            await wait_in_vain(
                3, 0.1 + self.grace
            )  # then the second is late there, too
            gate.set()
            assert await first == 1
            assert await self.answered(client, self.pattern("asked"), 4) == 4
        assert 2 not in ran
