"""What is looked at now and then: callers that gave up, servers that stand still."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from django_microservices import event_pattern, message_pattern
from django_microservices.endpoints import watch
from django_microservices.endpoints.server import Server
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern
from tests.endpoints.ends import FakeListener, running, server_of, until

PLACES = 4


class Holding:
    """A server whose handlers end one by one, each when ``let_go`` is called."""

    def __init__(self) -> None:
        self.held: list[asyncio.Future[None]] = []
        self.server: Server = server_of(
            FakeListener(), *self.handlers(), concurrency=PLACES
        )

    def handlers(self) -> list[Any]:
        """Make handlers of one pattern, and two of another."""

        async def hold(_: Any) -> None:
            self.held.append(asyncio.get_running_loop().create_future())
            await self.held[-1]

        async def hold_too(_: Any) -> None:
            await hold(_)

        patterns = [(hold, "one"), (hold_too, "two"), (hold, "two")]
        return [event_pattern(name)(function) for function, name in patterns]

    async def deliver(self, count: int, pattern: str = "one") -> None:
        """Deliver events; return when their handlers run."""
        handlers = count * (1 if pattern == "one" else 2)
        wanted = len(self.held) + handlers
        for _ in range(count):
            self.server.deliver(Message(Pattern.of(pattern), b"1", UNSET), _refuse)
        await until(lambda: len(self.held) == wanted)

    async def let_go(self) -> None:
        """Have the oldest handler end."""
        left = len(self.server.in_flight) - 1
        self.held.pop(0).set_result(None)
        await until(lambda: len(self.server.in_flight) == left)

    def look(self) -> bool:
        """Look, and return whether it is ready."""
        self.server.watch.look()
        return self.server.is_ready


def _refuse(_: Reply) -> None:
    raise AssertionError("nobody awaits an answer")


@pytest_asyncio.fixture
async def holding() -> AsyncIterator[Holding]:
    """Give a server that runs."""
    one = Holding()
    async with running(one.server):
        yield one


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the second look come late enough."""
    monkeypatch.setattr(watch, "STALLED", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_server_that_stands_still(
    holding: Holding, caplog: pytest.LogCaptureFixture
) -> None:
    """Full and with nothing that ends for long it is not ready, and says so once."""
    await holding.deliver(PLACES)
    with caplog.at_level(logging.ERROR):
        assert [holding.look() for _ in range(3)] == [True, False, False]
    (record,) = caplog.records
    assert "'tested' takes nothing new: of 4 handlers none has ended" in record.message


@pytest.mark.usefixtures("at_once")
async def test_server_that_goes_on(holding: Holding) -> None:
    """It is ready again as soon as anything has ended, though it is full again."""
    await holding.deliver(PLACES)
    assert [holding.look() for _ in range(2)] == [True, False]
    await holding.let_go()
    await holding.deliver(1)
    assert [holding.look() for _ in range(2)] == [True, False]
    await holding.let_go()
    assert [holding.look() for _ in range(2)] == [True, True]


async def test_busy_server(holding: Holding) -> None:
    """One that has been full for a short time only is ready."""
    await holding.deliver(PLACES)
    assert [holding.look() for _ in range(3)] == [True, True, True]


@pytest.mark.usefixtures("at_once")
async def test_handlers_of_one_event_share_a_place(holding: Holding) -> None:
    """As many handlers as places, of fewer messages, leave room."""
    await holding.deliver(PLACES // 2, "two")
    assert len(holding.server.in_flight) == PLACES
    assert [holding.look() for _ in range(3)] == [True, True, True]


@pytest.mark.usefixtures("at_once")
async def test_dead_letters_that_are_refused(
    holding: Holding, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold places as well: with no other left it is not ready."""
    intake: Any = holding.server._intake
    intake.unburied = PLACES - 1
    assert [holding.look() for _ in range(3)] == [True, True, True]
    intake.unburied = PLACES
    assert [holding.look() for _ in range(3)] == [True, False, False]
    assert f"{PLACES} places are held by dead letters" in caplog.text
    intake.unburied = PLACES - 1
    await holding.deliver(1)
    assert [holding.look() for _ in range(2)] == [True, False]
    await holding.let_go()
    assert holding.look()


async def test_overdue() -> None:
    """A sync handler whose caller gave up frees its place, answered so."""
    entered: list[int] = []
    go_on = threading.Event()

    @message_pattern("block")
    def block(_: Any) -> None:
        entered.append(1)
        go_on.wait(10)

    server = server_of(FakeListener(), block)
    async with running(server):
        replies: list[Reply] = []
        pattern = Pattern.of("block")
        short: Any = server.deliver(
            Message(pattern, b"1", "short", None, 60.0), replies.append
        )
        server.deliver(Message(pattern, b"1", "long", None, 60.0), replies.append)
        server.deliver(Message(pattern, b"1", "ever"), replies.append)
        await until(lambda: len(entered) == 3)
        short.context.deadline = server.timers.time() - 0.001
        server.watch.look()
        assert [reply.id for reply in replies] == ["short"]
        assert b"ran out of time" in (replies[0].error or b"")
        assert (server.timed_out, len(server.in_flight)) == (1, 2)
        go_on.set()
        await until(lambda: len(replies) == 3)
