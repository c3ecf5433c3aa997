"""Our client calls a real Nest service: the cases of every wire."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import (
    UNSET,
    ConnectionLost,
    MessageTimeout,
    NoHandler,
    NotConnected,
    RemoteError,
    Status,
)

from .callers import Caller
from .payloads import (
    BROKEN,
    DENIED,
    EMPTY,
    LARGE_TEXT,
    errors_of_nest,
    object_patterns,
    streams_of_nest,
    texts,
)

Doomed = tuple[Callable[[], object], Caller]
"""What ends the peer, and a client that has nothing else."""


class WeCallNest:
    """The cases; the module of a subclass gives the fixtures.

    ``nest`` is a client of a Nest service, ``large_nest`` one that takes 5 MB, where
    ``nest`` does not, and ``doomed`` a :data:`Doomed`.
    """

    async def test_request_is_answered(self, nest: Caller) -> None:
        """A request brings back its one value."""
        assert await nest.send({"cmd": "sum"}, [1, 2, 3]) == 6

    @object_patterns
    async def test_key_order_of_an_object_pattern_is_free(
        self, nest: Caller, pattern: Any
    ) -> None:
        """The route of an object pattern is the same text on both sides."""
        assert await nest.send(pattern, 1) == {"deep": 1}

    @pytest.mark.parametrize("pattern", [7, "7", 7.0])
    async def test_number_is_a_pattern(self, nest: Caller, pattern: Any) -> None:
        """A number is sent so that Nest finds it."""
        assert await nest.send(pattern, 1) == "seven"

    @texts
    async def test_text_beyond_ascii_arrives_whole(
        self, nest: Caller, text: str
    ) -> None:
        """In the pattern, the payload and the answer; TCP counts as Nest counts."""
        assert await nest.send("größe.👍", {text: [text]}) == {text: [text]}

    @pytest.mark.parametrize("value", [None, *EMPTY])
    async def test_payload_comes_back_as_it_was(self, nest: Caller, value: Any) -> None:
        """What is false or empty is a payload as any other."""
        answer = await nest.send("echo", value)
        assert (type(answer), answer) == (type(value), value)

    async def test_undefined_payload_comes_back_so(self, nest: Caller) -> None:
        """UNSET is JavaScript's undefined, as payload and as answer."""
        assert await nest.send("echo", UNSET) is UNSET

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("null", None),
            ("false", False),
            ("true", True),
            ("zero", 0),
            ("empty", ""),
            ("undefined", UNSET),
            ("list", []),
            ("object", {}),
            ("emoji", "naïve 👍🏽 日本語"),
            ("date", "1970-01-01T00:00:00.000Z"),
            ("nan", None),
            ("holes", [None, 1]),
            ("partial", {"kept": 1}),
        ],
    )
    async def test_result_is_plain_python(
        self, nest: Caller, name: str, value: Any
    ) -> None:
        """An undefined result is UNSET, which is not None."""
        answer = await nest.send("constant", name)
        assert (type(answer), answer) == (type(value), value)

    async def test_5_mb_go_both_ways(self, large_nest: Caller) -> None:
        """Where the limits let it through a large message is as any other."""
        assert await large_nest.send("echo", LARGE_TEXT) == LARGE_TEXT

    async def test_200_requests_are_in_flight_at_once(self, nest: Caller) -> None:
        """Each is answered only once all 200 are there."""
        answers = await asyncio.gather(*(nest.send("meet", 200) for _ in range(200)))
        assert {*answers} == {*range(1, 201)}

    async def test_late_answer_is_dropped(self, nest: Caller) -> None:
        """After a timeout the next call of the pattern gets its own answer."""
        with pytest.raises(MessageTimeout):
            await nest.send("slow", 200, timeout=0.05)
        assert await nest.send("slow", 250) == 250

    @errors_of_nest
    async def test_error_is_the_peers_value(
        self, nest: Caller, name: str, error: Any
    ) -> None:
        """A RemoteError carries exactly what Nest's filter sent."""
        with pytest.raises(RemoteError) as raised:
            await nest.send("fail", name)
        assert raised.value.error == error

    async def test_guard_refuses(self, nest: Caller) -> None:
        """What Nest's guards refuse has their sentence."""
        with pytest.raises(RemoteError, match=r"^Forbidden resource$") as raised:
            await nest.send("guarded", 1)
        assert raised.value.error == DENIED

    async def test_nobody_answers_an_unknown_pattern(self, nest: Caller) -> None:
        """The call ends at once: the peer or the broker says so."""
        with pytest.raises(NoHandler, match="cmd"):
            await nest.send({"cmd": "none"}, 1, timeout=None)

    @streams_of_nest
    async def test_stream_arrives_in_order(
        self, nest: Caller, kind: str, items: list[Any]
    ) -> None:
        """Every item arrives, whether or not the end comes with the last of them."""
        assert await nest.take(10, "stream", {"kind": kind, "n": 3, "ms": 5}) == items

    async def test_last_item_is_the_answer_to_a_request(self, nest: Caller) -> None:
        """Who asks a stream for one value gets its last."""
        assert await nest.send("stream", {"kind": "delayedEnd", "n": 3, "ms": 5}) == 2

    async def test_items_before_an_error_stay(self, nest: Caller) -> None:
        """A stream that fails has delivered what came before."""
        data = {"kind": "failing", "n": 2}
        assert await nest.take(2, "stream", data) == [0, 1]
        with pytest.raises(RemoteError) as raised:
            await nest.take(3, "stream", data)
        assert raised.value.error == BROKEN

    async def test_every_handler_of_an_event_runs(self, nest: Caller) -> None:
        """An event arrives, with its payload."""
        await nest.send("events.forget", 1)
        await nest.emit("created", {"id": "👍"})
        events = await nest.send("events", 2)
        assert sorted(event["handler"] for event in events) == ["first", "second"]
        assert [event["data"] for event in events] == [{"id": "👍"}] * 2

    async def test_event_of_an_object_pattern_arrives(self, nest: Caller) -> None:
        """Nest finds it by the route, which is what an event carries."""
        await nest.send("events.forget", 1)
        await nest.emit({"kind": "paid", "topic": "orders"}, 0)
        assert await nest.send("events", 1) == [{"handler": "object", "data": 0}]

    async def test_unknown_event_disturbs_nothing(self, nest: Caller) -> None:
        """Nest logs it, if it hears of it, and the connection goes on."""
        await nest.emit("unknown", 1)
        assert await nest.send("echo", 1) == 1

    async def test_status_says_that_nest_is_there(self, nest: Caller) -> None:
        """A client is connected from its first call on."""
        await nest.send("echo", 1)
        assert await nest.status() == Status.CONNECTED

    async def test_calls_end_with_the_peer(self, doomed: Doomed) -> None:
        """Calls in flight end with ConnectionLost when the process is gone.

        A stream's own connection, where it has one, may not have been there yet.
        """
        kill, caller = doomed
        calls = [
            asyncio.ensure_future(caller.send("slow", 30_000, timeout=None))
            for _ in range(5)
        ]
        calls.append(asyncio.ensure_future(_all(caller)))
        await caller.send("echo", 1)  # it was read after them
        await asyncio.to_thread(kill)
        async with asyncio.timeout(2):
            *errors, stream = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionLost] * 5
        assert isinstance(stream, ConnectionLost | NotConnected)


async def _all(caller: Caller) -> list[Any]:
    data = {"kind": "interval", "n": 10, "ms": 30_000}
    return await caller.take(10, "stream", data, timeout=30)
