"""What a client makes of servers that are silent, full or slow: rows 4 and 5."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from django_microservices import ConnectionLost, MessageTimeout, Status
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.server import Server
from django_microservices.transports.tcp import link as link_module
from tests.conftest import Figures
from tests.endpoints.ends import calling, serving, until

from .calls import cancelled, echo, hang, now, outcome_of, session_of
from .processes import process_serving
from .proxy import Proxy

Ports = Callable[[], int]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients ask after a tenth of a second."""
    monkeypatch.setattr(link_module, "SILENCE", 0.1)
    monkeypatch.setattr(link_module, "PATIENCE", 0.05)
    monkeypatch.setattr(link_module, "CHECK", 0.05)


# --- row 4: a half-open peer ------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_half_open(proxy: Proxy, client: Client) -> None:
    """4: A server that fell silent is found although nothing is pending."""
    await client.asend("echo")
    proxy.is_black = True
    begun = now()
    await until(lambda: client.status == Status.RECONNECTING)
    assert now() - begun < 10 * 0.3


async def test_live_peer_is_left_alone(
    proxy: Proxy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4: One that is only idle answers the ping, and keeps its connection."""
    monkeypatch.setattr(link_module, "SILENCE", 0.05)
    monkeypatch.setattr(link_module, "PATIENCE", 1.0)
    monkeypatch.setattr(link_module, "CHECK", 0.02)
    await client.asend("echo")
    driver = client.unwrap()
    await asyncio.sleep(0.3)
    assert await client.asend("echo", 1) == 1
    assert client.unwrap() is driver
    assert len(proxy.accepted) == 1


async def test_pending_calls_of_a_half_open_peer(
    proxy: Proxy, client: Client, figure: Figures
) -> None:
    """4: What is pending at a silent server ends at its deadline."""
    await client.asend("echo")
    proxy.is_black = True
    begun = now()
    with pytest.raises(MessageTimeout):
        await client.asend("echo", timeout=0.2)
    late = now() - begun - 0.2
    assert late >= 0
    figure("4: a deadline at a silent server is late by", late, 0.02)


@pytest.mark.usefixtures("impatient")
async def test_stopped_process(free_port: Ports) -> None:
    """4: A process that hangs, whose kernel still acknowledges, is found as well."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        await client.asend("echo")
        lost = asyncio.Event()
        client.on("disconnect", lost.set)
        process.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(lost.wait(), 10)
        process.send_signal(signal.SIGCONT)
        await until(lambda: client.status == Status.CONNECTED)
        assert await client.asend("echo", 1) == 1


# --- row 5: a slow server ---------------------------------------------------------


async def test_slow_handler(proxy: Proxy, client: Client, figure: Figures) -> None:
    """5: 100 calls to a slow handler end at their deadline, and all are cancelled."""
    await client.asend("echo")
    begun = now()
    calls = (client.asend("hang", n, timeout=0.3) for n in range(100))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {MessageTimeout}
    late = now() - begun - 0.3
    assert late >= 0
    figure("5: 100 deadlines of 300 ms: the last is late by", late, 0.05)
    await until(lambda: len(cancelled) == 100)


async def test_late_replies(proxy: Proxy, client: Client) -> None:
    """5: Replies that come after the deadline are ignored, and counted."""
    await client.asend("echo")
    session = session_of(client)
    proxy.delay = 0.2
    calls = (client.asend("echo", n, timeout=0.05) for n in range(20))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {MessageTimeout}
    await until(lambda: session.ignored == 20)
    proxy.delay = 0.0
    assert await client.asend("echo", 1) == 1


# --- rows 4 and 5: a server that is full ------------------------------------------


@contextlib.asynccontextmanager
async def full(port: int, places: int) -> AsyncIterator[tuple[Server, Client]]:
    """Give a server whose places are all taken by calls that hang, and a caller."""
    cancelled.clear()
    async with (
        serving(port, echo, hang, concurrency=places) as server,
        calling(port) as other,
        calling(port) as client,
    ):
        calls = [asyncio.ensure_future(other.asend("hang", -1)) for _ in range(places)]
        await until(lambda: len(server.in_flight) == places)
        yield server, client
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.usefixtures("impatient")
async def test_full_server_is_not_taken_for_dead(free_port: Ports) -> None:
    """4: A server without room answers pings, also to who has had no answer yet."""
    async with full(free_port(), 2) as (server, client):
        waiting = asyncio.ensure_future(client.asend("echo", 7))
        await until(lambda: client.status == Status.CONNECTED)
        driver, session = client.unwrap(), session_of(client)
        await until(lambda: session.ignored >= 3)  # the answers to pings
        assert client.unwrap() is driver
        assert len(server.in_flight) == 2
        waiting.cancel()


@pytest.mark.usefixtures("impatient")
async def test_full_server_that_falls_silent(free_port: Ports) -> None:
    """4: When it does fall silent it is found, though no call was answered before."""
    target = free_port()
    async with (
        full(target, 1),
        Proxy(free_port(), target) as proxy,
        calling(proxy.port) as client,
    ):
        call = asyncio.ensure_future(client.asend("echo", 7))
        await until(lambda: proxy.pipes)
        await until(lambda: session_of(client).ignored)
        proxy.is_black = True
        assert isinstance(await outcome_of(call), ConnectionLost)


async def test_calls_that_wait_in_vain(free_port: Ports, figure: Figures) -> None:
    """5: Calls that wait for room end at their deadline, and none of them is begun."""
    async with full(free_port(), 10) as (server, client):
        begun = now()
        calls = (client.asend("hang", n, timeout=0.3) for n in range(100))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {MessageTimeout}
        late = now() - begun - 0.3
        assert late >= 0
        figure("5: 90 that wait for room: the last is late by", late, 0.05)
        assert len(server.in_flight) == 10
    assert set(cancelled) == {-1}


async def test_cancel_frees_a_place(free_port: Ports, figure: Figures) -> None:
    """5: A call that is given up gives its place to who waits, on a full server."""
    port = free_port()
    cancelled.clear()
    async with serving(port, echo, hang, concurrency=1), calling(port) as client:
        await client.asend("echo")
        hung = asyncio.ensure_future(client.asend("hang", 1))
        await until(lambda: session_of(client).pending)
        waiting = asyncio.ensure_future(client.asend("echo", 7))
        await until(lambda: len(session_of(client).pending) == 2)
        hung.cancel()
        begun = now()
        assert await waiting == 7
        figure("5: a cancelled call's place is taken", now() - begun, 0.05)
        assert cancelled == [1]


async def test_cancel_of_what_waits(free_port: Ports) -> None:
    """5: A call that is given up while it waits for room is never begun."""
    port = free_port()
    cancelled.clear()
    async with (
        serving(port, echo, hang, concurrency=1) as server,
        calling(port) as other,
        calling(port) as client,
    ):
        hung = asyncio.ensure_future(other.asend("hang", 1))
        await until(lambda: len(server.in_flight) == 1)
        waiting = asyncio.ensure_future(client.asend("hang", 2))
        after = asyncio.ensure_future(client.asend("echo", 3))
        await until(lambda: client.status == Status.CONNECTED)
        await until(lambda: getattr(session_of(client).link, "is_ours", False))
        waiting.cancel()
        hung.cancel()
        assert await after == 3
    assert cancelled == [1]
