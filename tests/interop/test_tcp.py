"""Nest and we call each other over TCP."""

import asyncio
import datetime
from collections.abc import Callable
from typing import TypedDict

import pytest

from django_microservices import ConnectionLost, NotConnected, Request

from .callers import Caller, Connect
from .harness import Answer, NestClient, NestServer, StartNest
from .nest_calls_us import NestCallsUs
from .ours import LARGE, OurServer
from .payloads import FIVE_MB, NO_HANDLER
from .tap import tap_on
from .we_call_nest import Doomed, WeCallNest
from .wires import Way

TCP = "django_microservices.transports.TCPTransport"
SUM = Request({"cmd": "sum"}, list[int], int)


@pytest.fixture
def nest(connect: Connect, nest_server: NestServer) -> Caller:
    """Give our client of a Nest service with Nest's defaults."""
    return connect(TCP, port=nest_server.port)


@pytest.fixture
def large_nest(connect: Connect, nest_server: NestServer) -> Caller:
    """Give one with the limit raised."""
    return connect(TCP, port=nest_server.port, max_frame_size=LARGE)


@pytest.fixture
def doomed(connect: Connect, start_nest_server: StartNest) -> Doomed:
    """Give one whose Nest service the test may end."""
    server = start_nest_server()
    return server.process.process.kill, connect(TCP, port=server.port)


class Kept(TypedDict):
    """What the constant "partial" looks like."""

    kept: int


class TestWeCallNest(WeCallNest):
    """What every wire does, types of answers, and what TCP does with streams."""

    async def test_contract_is_answered(self, nest: Caller) -> None:
        """A contract's answer has its type."""
        assert await nest.send(SUM, [1, 2]) == 3

    async def test_date_is_read_as_one(self, nest: Caller) -> None:
        """A JavaScript Date is a datetime for who asks for it."""
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        assert await nest.send("constant", "date", returns=datetime.datetime) == epoch

    async def test_date_is_written_as_javascript_reads_it(self, nest: Caller) -> None:
        """Milliseconds are kept, and the zone is Z."""
        moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 5678, tzinfo=datetime.UTC)
        assert await nest.send("echo", moment) == "2024-02-29T12:00:00.005Z"

    async def test_answer_has_the_type_asked_for(self, nest: Caller) -> None:
        """An absent value is None where the type allows it."""
        assert await nest.send("constant", "partial", returns=Kept) == {"kept": 1}
        assert await nest.send("constant", "undefined", returns=int | None) is None

    async def test_metadata_is_seen_by_nest(self, nest: Caller) -> None:
        """Headers, and the time that is left, are what Nest's getMetadata returns."""
        await nest.connect()
        seen = await nest.send("metadata", 1, timeout=3, headers={"tenant": "größe"})
        assert seen == {"tenant": "größe", "dm-peer": "1", "dm-timeout": "3000"}

    async def test_long_stream_arrives_whole(self, nest: Caller) -> None:
        """More items than are kept for a reader hold Nest back and lose nothing."""
        items = await nest.take(9999, "stream", {"kind": "of", "n": 5000})
        assert items == [*range(5000)]

    async def test_leaving_a_stream_ends_its_connection(
        self, connect: Connect, nest_server: NestServer
    ) -> None:
        """Nest has no word for it, so that the connection itself says so."""
        async with tap_on(nest_server.port) as tap:
            caller = connect(TCP, port=tap.port)
            data = {"kind": "interval", "n": 400, "ms": 5}
            assert await caller.take(3, "stream", data) == [0, 1, 2]
            async with asyncio.timeout(1):
                await tap.left.wait()

    async def test_other_calls_go_on_when_a_stream_is_left(self, nest: Caller) -> None:
        """A stream's connection is its own."""
        slow = asyncio.ensure_future(nest.send("slow", 100))
        await nest.take(1, "stream", {"kind": "interval", "n": 100, "ms": 5})
        assert await slow == 100

    async def test_client_finds_a_server_that_comes_back(
        self, connect: Connect, start_nest_server: StartNest
    ) -> None:
        """While it is away calls fail at once, and then they are answered again."""
        server = start_nest_server()
        caller = connect(TCP, port=server.port)
        assert await caller.send("echo", 1) == 1
        server.close()
        with pytest.raises((ConnectionLost, NotConnected)):
            await caller.send("echo", 2)
        start_nest_server(port=server.port)
        assert await caller.send("echo", 3) == 3


@pytest.fixture
def us(our_server: OurServer) -> Way:
    """Give Nest the way to our service with our defaults."""
    return {"port": our_server.port}


@pytest.fixture
def large_us(our_server: OurServer) -> Way:
    """Give it the way to one with the limits raised, its own as well."""
    return {"port": our_server.ports["large"], "maxBufferSize": 2 * FIVE_MB}


class TestNestCallsUs(NestCallsUs):
    """What every wire does, and what TCP does with connections and limits."""

    async def test_message_over_the_limit_ends_the_connection(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """A Nest client learns at once, and its next call has a new connection."""
        client = {**us, "name": "too large"}
        answer = await nest_client.send(client, "echo", "x" * FIVE_MB)
        assert answer.thrown
        assert (await nest_client.send(client, "echo", 1)).value == 1

    async def test_requests_above_the_concurrency_wait_for_their_turn(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """200 at a server that takes 100 at a time each get their own answer."""
        items = [[number, 1] for number in range(200)]
        answers = await nest_client.send_many(us, {"cmd": "sum"}, items)
        assert [answer.value for answer in answers] == [*range(1, 201)]

    async def test_nobody_answers_an_unknown_pattern(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """The answer is Nest's own text, which is no object."""
        answer = await nest_client.send(us, {"cmd": "none"}, 1)
        assert answer == Answer(error=NO_HANDLER, failed=True)

    async def test_stream_ends_with_its_client(
        self,
        us: Way,
        nest_client: NestClient,
        start_nest_client: Callable[[], NestClient],
    ) -> None:
        """An unsubscribed stream runs on, as Nest has no word for it, until this."""
        await nest_client.send(us, "events.forget", 1)
        client = start_nest_client()
        answer = await client.send(us, "stream.endless", "x", take=3)
        assert answer.values == [0, 1, 2]
        client.close()
        answer = await nest_client.send(us, "events", 1)
        assert answer.value == [{"handler": "endless ended", "data": "x"}]

    async def test_connection_survives_events_that_fail(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """Neither an event that nobody handles nor one that fails disturbs anything."""
        client = {**us, "name": "failing events"}
        await nest_client.send(client, "events.forget", 1)
        await nest_client.emit(client, "unknown", 1)
        await nest_client.emit(client, "failed", 1)
        assert len((await nest_client.send(client, "events", 1)).value) == 1
        assert (await nest_client.acall("statuses", client)).values == ["connected"]

    async def test_metadata_is_on_the_context(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """What a Nest client's dispatch hook sets is the message's headers."""
        client = {**us, "metadata": {"tenant": "größe"}}
        answer = await nest_client.send(client, "metadata", 1)
        assert answer.value == {"tenant": "größe"}
