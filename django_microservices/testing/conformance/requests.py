"""Requests: what is sent arrives, and each answer finds its caller."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from ...dispatch.decorators import message_pattern
from ...transports.base import MESSAGE_OPTIONS
from ...wire.contracts import Request
from ...wire.messages import UNSET
from .bench import Bench

VALUES = [
    None,
    False,
    True,
    0,
    -1.5,
    2**53,
    "",
    "text",
    'Grüße 🚀 "quoted" \\ \x00 \r\n #12#',
    "half an emoji: \ud83d",
    [],
    {},
    [1, [2, {"a": None}]],
    {"": 0, "ä": {"nested": [True]}},
]
IN_FLIGHT = 50
LARGE = 100 * 1024  # bytes

OPTIONS: dict[str, Any] = {
    "content_type": "application/json",
    "delay": 0,
    "expiration": 60,
    "key": "k",
    "message_id": "m",
    "persistent": True,
    "priority": 1,
    "properties": {},
    "qos": 1,
    "retain": False,
    "user_properties": {"a": "b"},
}


class Point(msgspec.Struct):
    """A typed payload."""

    x: int
    y: int = 0


def echo(pattern: str | dict[str, Any]) -> Callable[..., Any]:
    """Make a handler that answers with what it gets."""

    @message_pattern(pattern)
    def handler(data: Any) -> Any:
        return data

    return handler


class RequestCases(Bench):
    """Requests."""

    async def test_every_value_arrives(self) -> None:
        """A value arrives as it was sent, and comes back as it was returned."""
        seen: list[Any] = []

        @message_pattern(self.pattern("echo"))
        def handler(data: Any) -> Any:
            seen.append(data)
            return data

        async with self.talking(handler) as client:
            answers = [await client.asend(self.pattern("echo"), v) for v in VALUES]
        assert list(map(repr, seen)) == list(map(repr, VALUES))
        assert list(map(repr, answers)) == list(map(repr, VALUES))

    async def test_nothing_is_not_null(self) -> None:
        """A missing payload and an answer without a value are UNSET, and not null."""
        seen: list[Any] = []

        @message_pattern(self.pattern("nothing"))
        def handler(data: Any) -> Any:
            seen.append(data)
            return UNSET

        async with self.talking(handler) as client:
            assert await client.asend(self.pattern("nothing"), UNSET) is UNSET
        assert seen == [UNSET]

    async def test_large_payload_arrives(self) -> None:
        """A payload of 100 KB goes there and back."""
        text = "é" * (LARGE // 2)
        async with self.talking(echo(self.pattern("large"))) as client:
            assert await client.asend(self.pattern("large"), text) == text

    async def test_object_pattern_matches_in_any_order(self) -> None:
        """A pattern that is an object is found however its keys are ordered."""
        registered = {"of": {"b": 1, "a": 2}, "cmd": self.name}
        asked = {"cmd": self.name, "of": {"a": 2, "b": 1}}
        async with self.talking(echo(registered)) as client:
            assert await client.asend(asked, "found") == "found"

    async def test_typed_payloads(self) -> None:
        """Both ends may say of which type a payload and an answer are."""
        mirror = Request(self.pattern("mirror"), Point, Point)

        @message_pattern(mirror)
        async def handler(data: Point) -> Point:
            return Point(data.y, data.x)

        async with self.talking(handler) as client:
            assert await client.asend(mirror, Point(1, 2)) == Point(2, 1)

    async def test_answers_find_their_callers(self) -> None:
        """Many requests are in flight, and end in another order than they began."""
        gates: list[asyncio.Event] = []

        @message_pattern(self.pattern("hold"))
        async def hold(data: int) -> int:
            gates.append(asyncio.Event())
            await gates[-1].wait()
            return data

        async with self.talking(hold) as client, asyncio.TaskGroup() as group:
            calls = [
                group.create_task(client.asend(self.pattern("hold"), number))
                for number in range(IN_FLIGHT)
            ]
            await self.until(lambda: len(gates) == IN_FLIGHT)
            for gate in reversed(gates):
                gate.set()
            assert await asyncio.gather(*calls) == list(range(IN_FLIGHT))

    async def test_answers_find_their_client(self) -> None:
        """Two clients that ask the same at once get each its own answers."""
        pattern = self.pattern("echo")
        async with (
            self.talking(echo(pattern)) as one,
            self.calling() as other,
            asyncio.TaskGroup() as group,
        ):
            calls = {
                (name, number): group.create_task(client.asend(pattern, [name, number]))
                for number in range(IN_FLIGHT)
                for name, client in (("one", one), ("other", other))
            }
        assert all(call.result() == [*asked] for asked, call in calls.items())

    async def test_sync_handlers_run_beside_async_ones(self) -> None:
        """One request may be answered on a thread and the next one on the loop."""

        @message_pattern(self.pattern("sync"))
        def on_thread(data: int) -> str:
            return f"sync {data}"

        @message_pattern(self.pattern("async"))
        async def on_loop(data: int) -> str:
            return f"async {data}"

        async with self.talking(on_thread, on_loop) as client:
            kinds = ["sync", "async"] * 5
            asked = [client.asend(self.pattern(k), n) for n, k in enumerate(kinds)]
            answers = await asyncio.gather(*asked)
        assert answers == [f"{kind} {number}" for number, kind in enumerate(kinds)]

    async def test_concurrency_is_bounded(self) -> None:
        """A server runs no more messages at once than it was told; the rest waits."""
        self.skip_where("in_process", "it is the caller who waits")
        gate = asyncio.Event()
        entered: list[int] = []

        @message_pattern(self.pattern("hold"))
        async def hold(data: int) -> int:
            entered.append(data)
            await gate.wait()
            return data

        async with (
            self.talking(hold, concurrency=2) as client,
            asyncio.TaskGroup() as group,
        ):
            calls = [
                group.create_task(client.asend(self.pattern("hold"), number))
                for number in range(6)
            ]
            await self.until(lambda: len(entered) >= 2)
            await asyncio.sleep(0.05)  # as long as a third one would take
            assert len(entered) == 2
            gate.set()
            assert await asyncio.gather(*calls) == list(range(6))

    async def test_options_of_other_wires_are_taken(self) -> None:
        """An option that means something on another wire is no error on this one."""
        assert OPTIONS.keys() == MESSAGE_OPTIONS
        async with self.talking(echo(self.pattern("echo"))) as client:
            answer = await client.asend(self.pattern("echo"), 1, options=OPTIONS)
        assert answer == 1

    async def test_handler_options_of_other_wires_are_taken(self) -> None:
        """Nor is a handler's option."""

        @message_pattern(self.pattern("echo"), qos=1, queue=self.name)
        def handler(data: Any) -> Any:
            return data

        async with self.talking(handler) as client:
            assert await client.asend(self.pattern("echo"), 1) == 1
