"""Nest and we call each other by a real Redis."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.brokers.redis import Redis

from .callers import Caller, Connect
from .harness import NestClient, StartNest
from .nest_calls_us import NestCallsUs, StreamsEndWithTheirReader
from .ours import APP, LARGE, OurServer, entry
from .we_call_nest import Doomed, WeCallNest
from .wires import Way, at

REDIS = "django_microservices.transports.redis.RedisTransport"
GLOBS = "tests.interop.redis_handlers"

StartServer = Callable[..., Redis]


@pytest.fixture(scope="module")
def nests_redis(start_server: StartServer, start_nest_server: StartNest) -> Redis:
    """A Redis with a Nest service, which listens with globs."""
    server = start_server(Redis, password="secret")
    globs = [{"pattern": "user.*"}, {"pattern": "audit.?", "event": True}]
    start_nest_server(**at(server, wildcards=True), handlers=globs)
    return server


@pytest.fixture
def nest(connect: Connect, nests_redis: Redis) -> Caller:
    """Give our client of the Nest service."""
    return connect(REDIS, url=nests_redis.url)


@pytest.fixture
def large_nest(connect: Connect, nests_redis: Redis) -> Caller:
    """Give one with the limit raised."""
    return connect(REDIS, url=nests_redis.url, max_frame_size=LARGE)


@pytest.fixture
def doomed(
    connect: Connect, private_redis: Redis, start_nest_server: StartNest
) -> Doomed:
    """Give one whose Redis the test may end."""
    start_nest_server(**at(private_redis))
    return private_redis.kill, connect(REDIS, url=private_redis.url)


class TestWeCallNest(WeCallNest):
    """What every wire does, and globs."""

    async def test_metadata_is_seen_by_nest(self, nest: Caller) -> None:
        """Headers, and the time that is left, are what Nest's getMetadata returns."""
        await nest.connect()
        seen = await nest.send("metadata", 1, timeout=3, headers={"tenant": "größe"})
        assert seen == {"tenant": "größe", "dm-peer": "1", "dm-timeout": "3000"}

    async def test_nest_knows_the_channel_of_an_event(self, nest: Caller) -> None:
        """Also by an object pattern or a glob."""
        await nest.send("events.forget", 1)
        await nest.emit({"kind": "paid", "topic": "orders"}, 0)
        await nest.emit("audit.1", 7)
        events = await nest.send("events.wire", 2)
        found = {event["handler"]: event["wire"] for event in events}
        assert found["object"]["channel"] == '{"kind":"paid","topic":"orders"}'
        assert found["audit.?"]["channel"] == "audit.1"

    async def test_nest_answers_by_a_glob(self, nest: Caller) -> None:
        """Its handler knows the channel, and the answer comes there."""
        answer = await nest.send("user.made", 1, headers={"tenant": "a"}, timeout=None)
        wire = {"channel": "user.made", "metadata": {"tenant": "a", "dm-peer": "1"}}
        assert answer == {"handler": "user.*", "data": 1, "wire": wire}


@pytest.fixture(scope="module")
def us(start_server: StartServer) -> Iterator[Way]:
    """Give Nest the way to our service, which listens with globs."""
    server = start_server(Redis, password="secret")
    options = {"url": server.url, "wildcards": True, "max_frame_size": LARGE}
    with closing(OurServer(default=entry(REDIS, [APP, GLOBS], **options))):
        yield at(server)


class TestNestCallsUs(NestCallsUs, StreamsEndWithTheirReader):
    """What every wire does, and globs."""

    async def test_event_by_two_globs_runs_once(
        self, us: Way, nest_client: NestClient
    ) -> None:
        """Redis makes a copy for each glob, and the handler runs for one of them."""
        await nest_client.send(us, "events.forget", 1)
        await nest_client.emit(us, "audit.a", 1)
        await nest_client.emit(us, "audit.long", 2)
        events = (await nest_client.send(us, "events", 2)).value
        assert events == [
            {"handler": "audit.a", "data": 1},
            {"handler": "audit.long", "data": 2},
        ]

    async def test_we_answer_by_a_glob(self, us: Way, nest_client: NestClient) -> None:
        """The handler knows channel and metadata; a handler of its own is first."""
        client = {**us, "metadata": {"tenant": "größe"}}
        answer = await nest_client.send(client, "user.gone", 1)
        assert answer.value == {
            "data": 1,
            "channel": "user.gone",
            "pattern": "user.gone",
            "headers": {"tenant": "größe"},
        }
        assert (await nest_client.send(us, "user.made", 1)).values == ["made"]
