"""A real Nest client calls our service: the cases of every wire."""

from typing import Any

import pytest

from .harness import Answer, NestClient
from .payloads import (
    BROKEN,
    DENIED,
    EMPTY,
    LARGE_TEXT,
    errors_of_ours,
    object_patterns,
    texts,
)
from .wires import Way


class NestCallsUs:
    """The cases; the module of a subclass gives the fixtures.

    ``us`` is Nest's way to our service, and ``large_us`` one that takes 5 MB, and 200
    calls at once, where ``us`` does not.
    """

    async def test_sync_handler_answers(self, us: Way, nest_client: NestClient) -> None:
        """A request to a plain function brings back its one value."""
        assert (await nest_client.send(us, {"cmd": "sum"}, [1, 2, 3])).value == 6

    @object_patterns
    async def test_key_order_of_an_object_pattern_is_free(
        self, us: Way, nest_client: NestClient, pattern: Any
    ) -> None:
        """The route of an object pattern is the same text on both sides."""
        assert (await nest_client.send(us, pattern, 1)).value == {"deep": 1}

    @pytest.mark.parametrize("pattern", [7, "7"])
    async def test_number_is_a_pattern(
        self, us: Way, nest_client: NestClient, pattern: Any
    ) -> None:
        """A number and its text are the same pattern."""
        assert (await nest_client.send(us, pattern, 1)).value == "seven"

    @texts
    async def test_text_beyond_ascii_arrives_whole(
        self, us: Way, nest_client: NestClient, text: str
    ) -> None:
        """In the pattern, the payload and the answer; TCP counts as Nest counts."""
        answer = await nest_client.send(us, "größe.👍", {text: [text]})
        assert answer.value == {text: [text]}

    async def test_half_a_surrogate_comes_back(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """What JavaScript may write and Unicode has not is a payload too."""
        assert (await nest_client.send(us, "length", js=r"'\ud83d'")).value == 1

    @pytest.mark.parametrize("value", [*EMPTY, 1e21])
    async def test_payload_comes_back_as_it_was(
        self, us: Way, nest_client: NestClient, value: Any
    ) -> None:
        """What is false or empty in either language is a payload as any other."""
        assert (await nest_client.send(us, "echo", value)).values == [value]

    @pytest.mark.parametrize(
        ("js", "members"),
        [
            ("{kept: null, dropped: undefined}", ["kept"]),
            ("{dropped: null}", ["kept", "dropped"]),
        ],
    )
    async def test_undefined_members_are_absent(
        self, us: Way, nest_client: NestClient, js: str, members: list[str]
    ) -> None:
        """JavaScript's undefined is a member left out, and null one that is there."""
        assert (await nest_client.send(us, "partial", js=js)).value == members

    @pytest.mark.parametrize(
        ("js", "value"),
        [
            ("{list: [undefined, 1], nan: NaN}", {"list": [None, 1], "nan": None}),
            ("[new Date(0)]", ["1970-01-01T00:00:00.000Z"]),
            ("[Buffer.from('A')]", [{"type": "Buffer", "data": [65]}]),
            ("2 ** 53 + 2", 2**53 + 2),
            ("[-0, 1e-7]", [0, 1e-7]),
        ],
    )
    async def test_what_only_javascript_has_arrives_as_its_json(
        self, us: Way, nest_client: NestClient, js: str, value: Any
    ) -> None:
        """A handler gets what JSON.stringify made of the payload."""
        assert (await nest_client.send(us, "echo", js=js)).values == [value]

    async def test_date_is_a_date_at_both_ends(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """A JavaScript Date is read as a datetime, and one is written as its JSON."""
        js = "new Date(Date.UTC(2024, 1, 29, 12, 0, 0, 5))"
        answer = await nest_client.send(us, "after", js=js)
        assert answer.value == "2024-03-01T12:00:00.005Z"

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("null", [None]),
            ("false", [False]),
            ("true", [True]),
            ("zero", [0]),
            ("empty", [""]),
            ("undefined", []),
            ("list", [[]]),
            ("object", [{}]),
            ("emoji", ["naïve 👍🏽 日本語"]),
            ("date", ["2024-02-29T12:00:00Z"]),
            ("milliseconds", ["2024-02-29T12:00:00.005Z"]),
            ("day", ["2024-02-29"]),
            ("decimal", ["0.10"]),
            ("uuid", ["00000000-0000-0000-0000-000000000007"]),
            ("nan", [None]),
            ("partial", [{"kept": 1}]),
        ],
    )
    async def test_result_arrives_as_javascript_would_write_it(
        self, us: Way, nest_client: NestClient, name: str, values: list[Any]
    ) -> None:
        """An undefined result is no value, which is not null."""
        assert await nest_client.send(us, "constant", name) == Answer(values)

    async def test_5_mb_go_both_ways(
        self, large_us: Way, nest_client: NestClient
    ) -> None:
        """Where the limits let it through a large message is as any other."""
        answer = await nest_client.send(large_us, "echo", LARGE_TEXT)
        assert answer.value == LARGE_TEXT

    async def test_200_requests_are_in_flight_at_once(
        self, large_us: Way, nest_client: NestClient
    ) -> None:
        """Each is answered only once all 200 are there."""
        answers = await nest_client.send_many(large_us, "meet", [200] * 200)
        assert {answer.value for answer in answers} == {*range(1, 201)}

    @pytest.mark.parametrize("pattern", ["fail", "fail.sync"])
    @errors_of_ours
    async def test_error_is_what_a_nest_service_would_say(
        self, us: Way, nest_client: NestClient, pattern: str, name: str, error: Any
    ) -> None:
        """An RpcException travels as it is, of anything else only the fixed text."""
        answer = await nest_client.send(us, pattern, name)
        assert answer == Answer(error=error, failed=True)

    async def test_guard_refuses(self, us: Way, nest_client: NestClient) -> None:
        """A guard that returns False answers Nest's own sentence."""
        assert (await nest_client.send(us, "guarded", 1)).error == DENIED

    async def test_payload_of_another_type_is_refused(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """The error names the member that is wrong."""
        answer = await nest_client.send(us, {"cmd": "sum"}, [1, "two"])
        assert answer.failed
        assert answer.error["status"] == "error"
        assert [error["path"] for error in answer.error["errors"]] == ["[1]"]

    @pytest.mark.parametrize("kind", ["generator", "async", "paused"])
    @pytest.mark.parametrize("length", [0, 1, 200])
    async def test_stream_arrives_in_order(
        self, us: Way, nest_client: NestClient, kind: str, length: int
    ) -> None:
        """Every item of a generator of either kind arrives, and its end."""
        answer = await nest_client.send(us, f"stream.{kind}", length)
        assert answer == Answer([*range(length)])

    async def test_stream_may_hold_anything(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """Items that are false in JavaScript are items."""
        items: list[Any] = [None, False, 0, "", [], {}, "👍"]
        answer = await nest_client.send(us, "stream.values", items)
        assert answer.values == items

    async def test_items_before_an_error_stay(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """A stream that fails has delivered what came before."""
        answer = await nest_client.send(us, "stream.failing", 2)
        assert answer == Answer([0, 1], error=BROKEN, failed=True)

    async def test_streams_interleave(self, us: Way, nest_client: NestClient) -> None:
        """On the one connection, and by the one reply address, nothing is mixed up."""
        answers = await nest_client.send_many(us, "stream.paused", [9] * 20)
        assert [answer.values for answer in answers] == [[*range(9)]] * 20

    async def test_every_handler_of_an_event_runs(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """An event reaches a sync and an async handler, with its payload."""
        await nest_client.send(us, "events.forget", 1)
        await nest_client.emit(us, "created", {"id": "👍"})
        events = (await nest_client.send(us, "events", 2)).value
        assert sorted(event["handler"] for event in events) == ["first", "second"]
        assert [event["data"] for event in events] == [{"id": "👍"}] * 2

    async def test_event_of_an_object_pattern_arrives(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """Nest sends the route of an event's pattern as a text."""
        await nest_client.send(us, "events.forget", 1)
        await nest_client.emit(us, {"kind": "paid", "topic": "orders"}, 0)
        answer = await nest_client.send(us, "events", 1)
        assert answer.value == [{"handler": "object", "data": 0}]

    async def test_request_to_an_event_runs_it(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """As with Nest, who asks an event's handler gets an answer."""
        await nest_client.send(us, "events.forget", 1)
        pattern = {"topic": "orders", "kind": "paid"}
        assert not (await nest_client.send(us, pattern, 5)).failed
        answer = await nest_client.send(us, "events", 1)
        assert answer.value == [{"handler": "object", "data": 5}]


class StreamsEndWithTheirReader:
    """A case of the wires where a server sees that nobody hears the next item."""

    async def test_stream_ends_with_its_reader(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """When Nest unsubscribes the handler is told."""
        await nest_client.send(us, "events.forget", 1)
        answer = await nest_client.send(us, "stream.endless", "x", take=3)
        assert answer.values == [0, 1, 2]
        events = (await nest_client.send(us, "events", 1)).value
        assert events == [{"handler": "endless ended", "data": "x"}]
