"""Nest and we call each other by a real NATS."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.brokers.nats import NATS

from .callers import Caller, Connect
from .harness import NestClient, StartNest
from .nest_calls_us import NestCallsUs, StreamsEndWithTheirReader
from .ours import APP, OurServer, entry
from .we_call_nest import Doomed, WeCallNest
from .wires import Way, at

TRANSPORT = "django_microservices.transports.NATSTransport"
HANDLERS = "tests.interop.nats_handlers"

StartServer = Callable[..., NATS]


@pytest.fixture(scope="module")
def nests_nats(start_server: StartServer, start_nest_server: StartNest) -> NATS:
    """A NATS with a Nest service, some of whose patterns have wildcards."""
    server = start_server(NATS, password="secret")
    wild = [{"pattern": "user.*"}, {"pattern": "audit.>", "event": True}]
    start_nest_server(**at(server), handlers=wild)
    return server


@pytest.fixture
def nest(connect: Connect, nests_nats: NATS) -> Caller:
    """Give our client of the Nest service."""
    return connect(TRANSPORT, url=nests_nats.url)


@pytest.fixture
def doomed(
    connect: Connect, private_nats: NATS, start_nest_server: StartNest
) -> Doomed:
    """Give one whose NATS the test may end."""
    start_nest_server(**at(private_nats))
    return private_nats.kill, connect(TRANSPORT, url=private_nats.url)


class TestWeCallNest(WeCallNest):
    """What every wire does, and headers, wildcards and queue groups."""

    async def test_headers_are_seen_by_nest(
        self, nests_nats: NATS, connect: Connect
    ) -> None:
        """Those of the client, of the message, and our own."""
        headers = {"app": "shop", "tenant": "none"}
        client = connect(TRANSPORT, url=nests_nats.url, headers=headers)
        await client.connect()
        seen = await client.send("context", 1, timeout=3, headers={"tenant": "größe"})
        assert seen["subject"] == "context"
        assert seen["headers"] == {
            "app": ["shop"],
            "tenant": ["größe"],
            "dm-peer": ["1"],
            "dm-timeout": ["3000"],
        }

    @pytest.mark.parametrize("pattern", ["a b", {"cmd": "a b"}, "user.*", "a..b"])
    async def test_pattern_that_nats_cannot_carry(
        self, nest: Caller, pattern: Any
    ) -> None:
        """Nest raises InvalidSubjectError for spaces; we name the pattern."""
        with pytest.raises(ValueError, match="is no subject of NATS"):
            await nest.send(pattern, 1)

    async def test_nest_knows_the_subject_of_an_event(self, nest: Caller) -> None:
        """Also by an object pattern or a wildcard."""
        await nest.send("events.forget", 1)
        await nest.emit({"kind": "paid", "topic": "orders"}, 0)
        await nest.emit("audit.a.b", 7)
        events = await nest.send("events.wire", 2)
        found = {event["handler"]: event["wire"] for event in events}
        assert found["object"]["subject"] == '{"kind":"paid","topic":"orders"}'
        assert found["audit.>"]["subject"] == "audit.a.b"

    async def test_nest_answers_by_a_wildcard(self, nest: Caller) -> None:
        """Its handler knows the subject and the headers."""
        answer = await nest.send("user.made", 1, headers={"tenant": "a"}, timeout=None)
        wire = {"subject": "user.made", "headers": {"tenant": ["a"], "dm-peer": ["1"]}}
        assert answer == {"handler": "user.*", "data": 1, "wire": wire}

    async def test_nests_in_a_queue_group(
        self, start_server: StartServer, start_nest_server: StartNest, connect: Connect
    ) -> None:
        """Of two Nest services with one queue one answers."""
        server = start_server(NATS)
        for _ in range(2):
            start_nest_server(**at(server), queue="all")
        client = connect(TRANSPORT, url=server.url)
        assert await client.take(10, "stream", {"kind": "of", "n": 3}) == [0, 1, 2]


@pytest.fixture(scope="module")
def us(start_server: StartServer) -> Iterator[Way]:
    """Give Nest the way to our service."""
    server = start_server(NATS, password="secret")
    ours = entry(TRANSPORT, [APP, HANDLERS], url=server.url, group="us")
    with closing(OurServer(default=ours)):
        yield at(server)


class TestNestCallsUs(NestCallsUs, StreamsEndWithTheirReader):
    """What every wire does, and headers, wildcards and queue groups."""

    async def test_event_by_two_wildcards_runs_once(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """NATS makes a copy for each pattern, and the handler runs for one of them."""
        await nest_client.send(us, "events.forget", 1)
        await nest_client.emit(us, "audit.a", 1)
        await nest_client.emit(us, "audit.a.b", 2)
        events = (await nest_client.send(us, "events", 2)).value
        assert events == [
            {"handler": "audit.a", "data": 1},
            {"handler": "audit.a.b", "data": 2},
        ]

    async def test_we_answer_by_a_wildcard(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """The handler knows subject and headers; a handler of its own is first."""
        record = {"headers": {"tenant": "größe"}}
        answer = await nest_client.send(us, "user.gone", 1, record=record)
        assert answer.value == {
            "data": 1,
            "subject": "user.gone",
            "pattern": "user.gone",
            "headers": {"tenant": "größe"},
        }
        assert (await nest_client.send(us, "user.made", 1)).values == ["made"]

    async def test_nobody_listens_for_nest(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """For a pattern that we do not have NATS tells Nest that nobody listens."""
        answer = await nest_client.send(us, "nobody", 1)
        assert answer.error["message"].startswith(
            "Empty response. There are no subscribers"
        )

    async def test_replicas_and_services(
        self,
        start_server: StartServer,
        start_nest_server: StartNest,
        nest_client: NestClient,
    ) -> None:
        """Our replicas share, other services get their own; a named queue joins all."""
        server = start_server(NATS)
        way = at(server)
        wild = [
            {"pattern": "counted", "event": True},
            {"pattern": "shared", "event": True, "extras": {"queue": "together"}},
        ]
        start_nest_server(**way, queue="nest", handlers=wild)
        groups = {"one": "us", "two": "us", "three": "others"}
        ours = {
            name: entry(TRANSPORT, [HANDLERS], url=server.url, group=group)
            for name, group in groups.items()
        }
        found: list[dict[str, Any]] = []
        with closing(OurServer(**ours)):
            for number in range(20):
                await nest_client.emit(way, "counted", number)
                await nest_client.emit(way, "shared", number)
            async with asyncio.timeout(20):
                while len(found) < 80:
                    of_nest = (await nest_client.send(way, "events", 20)).value
                    of_us = (await nest_client.send(way, "ours.events", 40)).value
                    found = of_nest + of_us
        seen: dict[str, list[int]] = {name: [] for name in ("counted", "shared")}
        for event in found:
            seen[event["handler"]].append(event["data"])
        thrice = sorted([*range(20)] * 3)  # us, others, and Nest
        assert sorted(seen["counted"]) == thrice
        assert sorted(seen["shared"]) == [*range(20)]
