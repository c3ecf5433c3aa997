"""Lifecycle: beginning, draining, ending, and what each end says of itself."""

import asyncio
from typing import Any

import pytest

from ...dispatch.decorators import event_pattern, message_pattern
from ...exceptions import MicroserviceError, NotConnected
from ...wire.messages import Subscription
from ...wire.patterns import Pattern
from ...wire.status import Status
from .bench import SILENCE, Bench
from .events import noting
from .requests import echo

MANY = 40


class LifecycleCases(Bench):
    """Lifecycle."""

    async def test_server_that_started_consumes(self) -> None:
        """An event that is sent as soon as a server has started arrives."""
        seen: list[int] = []
        noted = noting(self.pattern("noted"), seen)

        async with self.calling() as client, self.serving(noted):
            await client.aemit(self.pattern("noted"), 1)
            await self.until(lambda: seen == [1])

    async def test_transport_can_serve_again(self) -> None:
        """A transport holds options only: its block can be left and entered again."""
        wire = self.server_transport()
        subscription = Subscription(Pattern.of(self.pattern("it")), "request")
        for _ in range(2):
            async with wire.serve(
                [subscription], _refuse, lambda _: None, limit=1
            ) as intake:
                assert not intake.closed.done()
                assert intake.address

    async def test_serving_can_be_cancelled(self) -> None:
        """Cancelling stops at once, and leaves nothing that keeps the next one out."""
        wire = self.server_transport()
        subscription = Subscription(Pattern.of(self.pattern("it")), "request")
        entered = asyncio.Event()

        async def hold() -> None:
            async with wire.serve([subscription], _refuse, lambda _: None, limit=1):
                entered.set()
                await asyncio.Event().wait()

        for _ in range(2):
            entered.clear()
            task = asyncio.ensure_future(hold())
            await self.until(entered.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, self.patience)

    async def test_starting_can_be_cancelled(self) -> None:
        """A server that is stopped while it starts has stopped, and may start again."""
        server = self.server(echo(self.pattern("echo")))

        async def start() -> None:
            async with self.running(server):
                await asyncio.Event().wait()

        task = asyncio.ensure_future(start())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, self.patience)
        async with self.talking(echo(self.pattern("echo"))) as client:
            assert await client.asend(self.pattern("echo"), 1) == 1

    async def test_stopping_twice_is_stopping(self) -> None:
        """A server that is stopped twice has stopped."""
        async with self.serving(echo(self.pattern("echo"))) as server:
            await server.stop()
        assert server.status == Status.CLOSED

    async def test_client_outlives_its_server(self) -> None:
        """A client finds the server again that was stopped and started."""
        pattern = self.pattern("echo")
        async with self.calling() as client:
            for number in range(3):
                async with self.serving(echo(pattern)):
                    assert await self.answered(client, pattern, number) == number

    async def test_client_can_be_used_after_it_was_closed(self) -> None:
        """A client that was closed connects again at its next call."""
        async with self.talking(echo(self.pattern("echo"))) as client:
            for number in range(2):
                assert await client.asend(self.pattern("echo"), number) == number
                await client.aclose()

    async def test_drain_finishes_what_was_accepted(self) -> None:
        """A server that drains answers what it has accepted, and is not ready."""
        entered: list[int] = []
        gate = asyncio.Event()

        @message_pattern(self.pattern("slow"))
        async def slow(data: int) -> int:
            entered.append(data)
            await gate.wait()
            return data

        async with (
            self.serving(slow) as server,
            self.calling() as client,
            asyncio.TaskGroup() as group,
        ):
            call = group.create_task(client.asend(self.pattern("slow"), 1))
            await self.until(lambda: entered)
            drain = group.create_task(server.drain())
            await self.until(lambda: server.status == Status.DRAINING)
            assert not server.is_ready
            gate.set()
            await asyncio.wait_for(drain, self.patience)
            assert await call == 1

    async def test_drained_server_takes_nothing_new(self) -> None:
        """A server that has drained runs no handler any more."""
        self.skip_where("in_process", "a caller runs the handlers itself")
        seen: list[int] = []

        @message_pattern(self.pattern("asked"))
        async def asked(data: int) -> int:
            seen.append(data)
            return data

        async with self.serving(asked) as server, self.calling() as client:
            assert await client.asend(self.pattern("asked"), 1) == 1
            await asyncio.wait_for(server.drain(), self.patience)
            with pytest.raises(MicroserviceError):
                await client.asend(self.pattern("asked"), 2, timeout=SILENCE)
        assert seen == [1]

    async def test_server_says_how_it_is(self) -> None:
        """A server's status tells of its beginning and of its end."""
        server = self.server(echo(self.pattern("echo")))
        seen: list[Status] = []
        server.status.listen(seen.append)
        assert server.status == Status.DISCONNECTED
        with pytest.raises(NotConnected):
            server.unwrap()
        async with self.running(server):
            assert server.status == Status.CONNECTED
            assert server.is_ready
            assert server.unwrap() is not None
        assert (seen[0], seen[-1]) == (Status.CONNECTING, Status.CLOSED)
        assert Status.CONNECTED in seen
        with pytest.raises(NotConnected):
            server.unwrap()

    async def test_client_says_how_it_is(self) -> None:
        """So does a client's."""
        self.skip_where("in_process", "a client connects for each call")
        async with self.talking(echo(self.pattern("echo"))) as client:
            assert client.status == Status.DISCONNECTED
            with pytest.raises(NotConnected):
                client.unwrap()
            await client.aconnect()
            assert client.status == Status.CONNECTED
            assert client.unwrap() is not None
            await client.aclose()
            assert client.status == Status.CLOSED

    async def test_two_servers_share_the_work(self) -> None:
        """Of two servers of one service each message goes to one, and both get some."""
        self.needs("shares_work")
        self.skip_where("listens", "it is shared by whoever is in front of it")
        seen: list[tuple[str, int]] = []

        def noting(name: str) -> Any:
            @event_pattern(self.pattern("noted"))
            async def noted(data: int) -> None:
                seen.append((name, data))

            return noted

        one, other = self.server(noting("one")), self.server(noting("other"))
        async with self.running(one, other), self.calling() as client:
            sent = 0
            async with asyncio.timeout(self.patience):
                while sent < MANY or len({name for name, _ in seen}) < 2:
                    await client.aemit(self.pattern("noted"), sent)
                    sent += 1
                    await asyncio.sleep(0)
            await self.until(lambda: len(seen) >= sent)
        assert sorted(number for _, number in seen) == list(range(sent))

    async def test_replicas_give_one_answer(self) -> None:
        """A request to two servers of a service runs in one, and is answered."""
        self.needs("shares_work")
        self.skip_where("listens", "it is shared by whoever is in front of it")
        ran: list[int] = []

        @message_pattern(self.pattern("asked"))
        async def asked(data: int) -> int:
            ran.append(data)
            return data

        one, other = self.server(asked), self.server(asked)
        async with self.running(one, other), self.calling() as client:
            for number in range(MANY):
                assert await client.asend(self.pattern("asked"), number) == number
        assert ran == list(range(MANY))

    async def test_handlers_run_on_the_callers_thread(self) -> None:
        """Where both ends are in one process, nothing leaves the caller's context."""
        self.needs("in_process")
        loops: list[Any] = []

        @message_pattern(self.pattern("asked"))
        async def asked(_: Any) -> None:
            loops.append(asyncio.get_running_loop())

        async with self.talking(asked) as client:
            await client.asend(self.pattern("asked"))
        assert loops == [asyncio.get_running_loop()]


def _refuse(*_: Any) -> Any:
    raise AssertionError("nobody sends anything")
