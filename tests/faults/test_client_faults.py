"""What a client makes of servers that come and go: rows 1, 2, 8, 9 and 12."""

import asyncio
import contextlib
import itertools
import random
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_microservices import (
    ConnectionLost,
    MicroserviceError,
    NotConnected,
    Status,
)
from django_microservices.endpoints import connection as connection_module
from django_microservices.endpoints.backoff import CLIENT_CAP, Backoff
from django_microservices.endpoints.client import Client
from tests.conftest import Figures
from tests.endpoints.ends import calling, serving, serving_elsewhere, until
from tests.endpoints.scripts import run_script

from .calls import (
    echo,
    now,
    session_of,
)
from .processes import process_serving
from .proxy import Proxy

Ports = Callable[[], int]


# --- row 1: the server is absent --------------------------------------------------


async def test_absent_server(free_port: Ports, figure: Figures) -> None:
    """1: An absent server is a quick typed error; when it appears, calls succeed."""
    port = free_port()
    async with calling(port) as client:
        begun = now()
        with pytest.raises(NotConnected):
            await client.asend("echo")
        figure("1: an absent server is an error", now() - begun, 0.05)
        async with serving(port, echo):
            begun = now()
            while True:
                with contextlib.suppress(NotConnected):
                    assert await client.asend("echo", 7) == 7
                    break
                await asyncio.sleep(0.1)
            figure("1: it appears, and calls succeed", now() - begun, 1.0)


# --- row 2: the server dies -------------------------------------------------------


async def test_reset_with_1000_pending(
    proxy: Proxy, client: Client, figure: Figures
) -> None:
    """2: When the connection is reset, all that is pending fails at once."""
    await client.asend("echo")
    calls = [asyncio.ensure_future(client.asend("hang", n)) for n in range(1000)]
    session = session_of(client)
    await until(lambda: len(session.pending) == 1000)
    begun = now()
    proxy.cut(reset=True)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    figure("2: 1,000 pending calls fail after a reset", now() - begun, 0.2)
    assert {type(error) for error in errors} == {ConnectionLost}
    assert session.pending == {}


async def test_server_killed(free_port: Ports) -> None:
    """2: So it does when the server's process is killed."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        await client.asend("echo")
        calls = [asyncio.ensure_future(client.asend("hang")) for _ in range(100)]
        session = session_of(client)
        await until(lambda: len(session.pending) == 100)
        process.kill()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {ConnectionLost}


# --- row 8: cancelling ------------------------------------------------------------


async def test_cancelled_at_random(proxy: Proxy, client: Client) -> None:
    """8: Thousands of cancels at random times mix nothing up and leave nothing."""
    chance = random.Random(8)
    await client.asend("echo")
    wrong: list[Any] = []

    async def call(number: int) -> None:
        pattern = chance.choice(["echo", "echo", "hang"])
        task = asyncio.ensure_future(client.asend(pattern, number, timeout=5))
        for _ in range(chance.randint(0, 12)):
            await asyncio.sleep(0)
        if pattern == "hang" or chance.random() < 0.7:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            if await task != number:
                wrong.append(number)

    for begin in range(0, 2000, 200):
        await asyncio.gather(*(call(n) for n in range(begin, begin + 200)))
    assert wrong == []
    assert session_of(client).pending == {}
    assert await client.asend("echo", 1) == 1
    assert len(proxy.accepted) == 1


# --- row 9: everybody comes back --------------------------------------------------


def most_in(times: list[float], window: float) -> int:
    """Return how many of ``times`` lie in the fullest window."""
    times = sorted(times)
    return max(
        sum(1 for time in times[n:] if time < begin + window)
        for n, begin in enumerate(times)
    )


def back_after(down: float, chance: random.Random) -> tuple[float, int]:
    """Return when the first attempt after ``down`` comes, and how many came first."""
    backoff, at, attempts = Backoff(CLIENT_CAP), 0.0, 0
    while at < down:
        at += backoff.next()
        attempts += 1
    return at - down, attempts


def test_herd_is_spread(monkeypatch: pytest.MonkeyPatch, figure: Figures) -> None:
    """9: Of 200 clients, down for 20 s, at most 10 % come back in the same 100 ms."""
    chance = random.Random(9)
    monkeypatch.setattr(random, "uniform", chance.uniform)
    runs = [[back_after(20.0, chance) for _ in range(200)] for _ in range(100)]
    peaks = [most_in([time for time, _ in run], 0.1) for run in runs]
    assert sum(peak > 20 for peak in peaks) <= 5
    latest = max(time for run in runs for time, _ in run)
    assert latest <= 2 * CLIENT_CAP
    peak = statistics.median(peaks) / 2
    figure("9: of 200 clients, those back in the fullest 100 ms", peak, 10, "%")
    figure("9: the last of them", latest, 2 * CLIENT_CAP)
    assert max(attempts for run in runs for _, attempts in run) < 50


async def test_herd(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """9: All clients come back by themselves, each with one connection."""
    monkeypatch.setattr(connection_module, "CLIENT_CAP", 0.5)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(calling(proxy.port)) for _ in "x" * 50
        ]
        await asyncio.gather(*(client.aconnect() for client in clients))
        await until(lambda: len(proxy.pipes) == 50)
        proxy.refuse()
        proxy.cut(reset=True)
        await until(lambda: all(c.status == Status.RECONNECTING for c in clients))
        await asyncio.sleep(0.5)
        proxy.accepted.clear()
        await proxy.listen()
        begun = now()
        await until(lambda: all(c.status == Status.CONNECTED for c in clients))
        assert now() - begun < 10 * 2 * 0.5
        assert len(proxy.accepted) == 50


async def test_server_without_room(proxy: Proxy, client: Client) -> None:
    """9: A server that lets nobody in is not asked without a pause."""
    proxy.limit = 0
    with contextlib.suppress(MicroserviceError):
        await client.asend("echo", timeout=0.2)
    await asyncio.sleep(0.5)
    gaps = [later - one for one, later in itertools.pairwise(proxy.accepted)]
    assert len(gaps) < 25


# --- row 12: forks ----------------------------------------------------------------


@pytest.fixture
def served(free_port: Ports) -> Iterator[int]:
    """Serve on another thread's loop; give the port."""
    port = free_port()
    with serving_elsewhere(port, echo):
        yield port


def test_prefork(served: int) -> None:
    """12: Four workers forked after use share no socket and mix nothing up."""
    printed = run_script(
        served,
        """
        client = create_client(port=port)
        client.send("echo", "master")
        readers = []
        for worker in range(4):
            reader, writer = os.pipe()
            if os.fork() == 0:
                answers = [client.send("echo", [worker, n]) for n in range(300)]
                assert answers == [[worker, n] for n in range(300)]
                address = client.unwrap().get_extra_info("sockname")
                os.write(writer, repr(address).encode())
                os._exit(0)
            os.close(writer)
            readers.append(reader)
        addresses = {os.read(reader, 100) for reader in readers}
        addresses.add(repr(client.unwrap().get_extra_info("sockname")).encode())
        assert client.send("echo", "master") == "master"
        print(len(addresses), {os.wait()[1] for _ in range(4)})
        """,
    )
    assert printed == "5 {0}\n"
