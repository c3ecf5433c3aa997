"""Faults that every broker has alike; the rows are those of the tests that use them.

``client`` are options of the client's transport. A bound is ten times the figure.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from django_microservices import ConnectionLost, MicroserviceError

from .bench import Bench, left
from .broker_served import IN_FLIGHT
from .load import RATE, SOON, Away, Load, numbers

HANGING = 80  # calls
LATE = 0.5  # seconds after a silence until it is acted on
POISON = [-1 - number for number in range(5)]

Ends = tuple[Callable[[Any], None], ...]


@contextlib.asynccontextmanager
async def restarted(
    bench: Bench,
    ends: Ends,
    *,
    back: float,
    retries: bool = False,
    named: bool = False,
    **client: Any,
) -> AsyncIterator[tuple[Load, list[Away]]]:
    """Have had the broker ended and started under load; both ends still run.

    Each time it consumes again ``back`` seconds after the broker is there.
    """
    away: list[Away] = []
    async with bench.serving() as server, bench.calling(**client) as caller:
        async with bench.load(caller, retries=retries, named=named) as load:
            for end in ends:
                await bench.sees()
                away.append(await bench.restart(end, server, load))
                took = away[-1].well - away[-1].came
                bench.figure("13 to 18", "consuming again", took, back)
            await bench.sees()
        assert load.refused  # while it was away emitting said so
        yield load, away


def little_is_lost(bench: Bench, load: Load, away: list[Away], beside: float) -> None:
    """Rows 15, 16, 18: only what was emitted while the broker was away, or about then.

    ``beside`` is how many seconds about it are the figure; ten times that explain it.
    """
    assert not load.unexplained(bench.seen, away, margin=10 * beside)
    down = sum(one.came - one.went for one in away) / len(away)
    lost = len(load.lost(bench.seen)) / RATE / len(away)
    bench.figure("15 to 18", "lost in a restart, of a second", lost, down + beside)


async def pending_calls_fail_at_once(bench: Bench, ends: Ends) -> None:
    """Row 2: none of them hangs, and the next ones are answered by and by."""
    time = asyncio.get_running_loop().time
    async with bench.serving() as server, bench.calling() as client:
        for end in ends:
            bench.entered.clear()
            calls = [
                asyncio.ensure_future(
                    client.asend(f"{bench.name}.hang", number, timeout=None)
                )
                for number in range(HANGING)
            ]
            await bench.until(lambda: len(bench.entered) == HANGING)
            await asyncio.to_thread(end, bench.broker)
            begun = time()
            errors = await asyncio.gather(*calls, return_exceptions=True)
            bench.figure("2", "pending calls fail", time() - begun, 0.2)
            assert {type(error) for error in errors} == {ConnectionLost}
            await bench.until(lambda: not server.is_ready)
            with pytest.raises(MicroserviceError):
                await client.asend(f"{bench.name}.echo", 1)
            await asyncio.to_thread(bench.broker.start)
            await bench.ask(client)
            assert server.is_ready


async def frozen(bench: Bench, silence: float, **options: Any) -> None:
    """Row 20: both ends find out, and are back when the broker goes on.

    ``silence`` is after how many seconds that is; ``options`` are more of both
    transports'.
    """
    time = asyncio.get_running_loop().time
    async with (
        bench.serving(**options) as server,
        bench.calling(**options) as client,
    ):
        await bench.ask(client)
        begun = time()
        bench.broker.freeze()
        try:
            async with asyncio.timeout(SOON):
                await asyncio.gather(left(client.status), left(server.status))
            what = f"a silence of {silence:g} s is found"
            bench.figure("20", what, time() - begun, silence + LATE)
            assert not server.is_ready
        finally:
            bench.broker.thaw()
        await bench.ask(client)
        await bench.until(lambda: server.is_ready)
        await client.aemit(bench.pattern, 1)
        await bench.until(lambda: 1 in bench.seen)


async def leaving_while_frozen(bench: Bench) -> None:
    """Nobody waits for ever for one who is mute."""
    async with asyncio.timeout(10 * 5.0):
        async with bench.serving(), bench.calling() as client:
            await client.aconnect()
            bench.broker.freeze()
    bench.broker.thaw()


async def killed_servers_lose_nothing(
    bench: Bench, file: Path, *, kills: int = 3, named: bool = False, **client: Any
) -> None:
    """Row 25: what a killed server held comes again, to the next one."""
    async with contextlib.AsyncExitStack() as stack:
        process = await stack.enter_async_context(bench.served(file))
        caller = await stack.enter_async_context(bench.calling(**client))
        async with bench.load(caller, retries=True, named=named) as load:
            for _ in range(kills):
                await bench.noted(file)
                process.kill()
                await process.wait()
                process = await stack.enter_async_context(bench.served(file))
        await bench.until(lambda: load.all <= {*numbers(file)})
    seen = numbers(file)
    assert {*seen} == load.accepted.keys() == load.all
    twice = (len(seen) - len(load.all)) / kills
    bench.figure("25", "twice, of each kill", twice, IN_FLIGHT, "messages")
    assert twice <= IN_FLIGHT


async def stopping_server_answers_all(bench: Bench, file: Path) -> None:
    """Row 24: after SIGTERM what was accepted is answered, and the process ends."""
    async with bench.served(file) as process, bench.calling() as client:
        calls = [
            asyncio.ensure_future(client.asend(f"{bench.name}.slow", number))
            for number in range(IN_FLIGHT)
        ]
        await bench.until(lambda: len(numbers(file)) == len(calls))
        process.send_signal(signal.SIGTERM)
        assert sorted(await asyncio.gather(*calls)) == list(range(IN_FLIGHT))
        assert await asyncio.wait_for(process.wait(), SOON) == 0


async def poison_is_buried(
    bench: Bench,
    buried: Callable[[], Awaitable[None]],
    *,
    tries: int,
    client: dict[str, Any],
    **options: Any,
) -> None:
    """Row 34: it runs so often and no more, and holds nobody up.

    ``buried`` waits until the dead letters are there; ``options`` are the server's.
    """
    async with (
        bench.serving(redelivery_delay=0.1, **options),
        bench.calling(**client) as caller,
    ):
        async with bench.load(caller) as load:
            await bench.sees(50)
            for number in POISON:
                await caller.aemit(bench.pattern, number)
            await buried()
            await bench.sees(50)
        await bench.until(lambda: load.accepted.keys() <= {*bench.seen})
    assert sorted(bench.tries) == sorted(POISON * tries)
    assert sorted(bench.seen) == sorted(load.accepted)  # none of the others came twice
    assert load.refused == 0
