"""The servers of one process: start, ready, drain, stop."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices import (
    Microservice,
    NotConnected,
    Server,
    Status,
    TransportRefused,
    message_pattern,
)
from django_microservices.concurrency.inline import Inline
from django_microservices.concurrency.threads import Threads
from django_microservices.runtime import microservice as microservice_module
from django_microservices.signals import (
    microservice_ready,
    microservice_starting,
    microservice_stopping,
)
from django_microservices.transports.memory import MemoryTransport
from django_microservices.transports.tcp import TCPTransport
from tests.endpoints.ends import (
    FakeListener,
    calling,
    client_of,
    running,
    server_of,
    until,
)

Ports = Callable[[], int]


# --- start ------------------------------------------------------------------------


async def test_all_servers_run() -> None:
    """Started means that every server consumes; stopped that none does."""
    servers = [server_of(FakeListener()) for _ in range(3)]
    microservice = Microservice(servers)
    assert not microservice.is_ready
    await microservice.start()
    ready: bool = microservice.is_ready
    assert ready
    servers[0].status.change(Status.BLOCKED)
    assert not microservice.is_ready
    await microservice.stop()
    assert {str(server.status) for server in servers} == {"closed"}


async def test_signals() -> None:
    """Starting, being ready and stopping are told, in this order."""
    told: list[tuple[str, bool]] = []

    def starting(sender: Any, microservice: Microservice, **_: Any) -> None:
        told.append(("starting", microservice.is_ready))

    def ready(sender: Any, microservice: Microservice, **_: Any) -> None:
        told.append(("ready", microservice.is_ready))

    def stopping(sender: Any, microservice: Microservice, **_: Any) -> None:
        told.append(("stopping", microservice.is_ready))

    microservice_starting.connect(starting)
    microservice_ready.connect(ready)
    microservice_stopping.connect(stopping)
    try:
        async with running(server_of(FakeListener())) as microservice:
            await microservice.drain()
    finally:
        microservice_starting.disconnect(starting)
        microservice_ready.disconnect(ready)
        microservice_stopping.disconnect(stopping)
    assert told == [("starting", False), ("ready", True), ("stopping", True)]


async def test_port_taken(free_port: Ports) -> None:
    """A server whose port is taken refuses to start, and the others are stopped."""
    port = free_port()
    well = FakeListener()
    first = server_of(TCPTransport(port=port))
    async with running(first):
        microservice = Microservice(
            [server_of(well), server_of(TCPTransport(port=port))]
        )
        with pytest.raises(TransportRefused, match="Cannot listen"):
            await microservice.start()
        assert first.is_ready
    assert all(intake.left for intake in well.intakes)
    assert not any(server.is_ready for server in microservice.servers)


async def test_wrong_settings_of_one() -> None:
    """Wrong settings of one server are what is raised; the others are stopped."""

    def load() -> Any:
        raise ImproperlyConfigured("wrong")

    servers = [Server("wrong", load), server_of(FakeListener())]
    with pytest.raises(ImproperlyConfigured, match="wrong"):
        await Microservice(servers).start()
    assert not servers[1].is_ready


async def test_failing_receiver_of_ready() -> None:
    """When a receiver of ``microservice_ready`` fails, the servers are stopped."""

    def fail(sender: Any, **_: Any) -> None:
        raise ZeroDivisionError

    listener = FakeListener()
    microservice_ready.connect(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            await Microservice([server_of(listener)]).start()
    finally:
        microservice_ready.disconnect(fail)
    assert listener.intake.left


async def test_cancelled_start() -> None:
    """A start that is cancelled stops what has started already."""
    listener = FakeListener()
    slow = FakeListener(asyncio.Event())
    microservice = Microservice([server_of(listener), server_of(slow)])
    starting = asyncio.ensure_future(microservice.start())
    await until(lambda: listener.intakes and slow.entered)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert listener.intake.left


# --- threads ----------------------------------------------------------------------


async def test_threads() -> None:
    """All servers share one pool for handlers and one for streams, until the end."""
    servers = [server_of(FakeListener()), server_of(FakeListener())]
    async with running(*servers, threads=3):
        names = sorted(
            t.name for t in threading.enumerate() if "microservice-s" in t.name
        )
        assert len([name for name in names if "sync" in name]) == 3
        assert len([name for name in names if "stream" in name]) == 2
        assert servers[0].threads is servers[1].threads
    assert not [t for t in threading.enumerate() if "microservice-s" in t.name]


async def test_threads_of_one_process() -> None:
    """On the memory transport handlers run on the caller's thread: there is no pool."""
    server = server_of(MemoryTransport())
    async with running(server):
        assert isinstance(server.threads, Inline)


class Gate:
    """What threads wait for."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = 0

    def handler(self, **options: Any) -> Any:
        """Make a sync handler that hangs."""

        @message_pattern("hang", **options)
        def hang(data: Any) -> None:
            self.entered += 1
            assert self.open.wait(20)

        return hang


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give one that is open in the end."""
    gate = Gate()
    yield gate
    gate.open.set()


@message_pattern("echo")
def echo(data: Any) -> Any:
    """Return what came."""
    return data


async def test_hanging_threads_are_relieved(
    free_port: Ports,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When all threads hang in what nobody awaits, others take their place."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(microservice_module, "STUCK_AFTER", 0.05)
    port = free_port()
    server = server_of(TCPTransport(port=port), gate.handler(), echo)
    async with running(server, threads=2) as microservice, calling(port) as client:
        calls = [client.asend("hang", timeout=0.1) for _ in range(2)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, TimeoutError) for error in errors)
        assert await client.asend("echo", 1) == 1
        await until(lambda: microservice.stuck == 2)
        records = [r for r in caplog.records if "hangs in <tests.ru" in r.getMessage()]
        assert {r.__dict__["message_context"].pattern for r in records} == {"hang"}
        assert threads_of(server) == 4
        gate.open.set()
        await until(lambda: microservice.stuck == 0)
        await until(lambda: threads_of(server) == 2)
        assert await client.asend("echo", 2) == 2


def threads_of(server: Server) -> int:
    """Return how many threads the pool has."""
    assert isinstance(server.threads, Threads)
    return sum(worker.is_there for worker in server.threads._workers)


async def test_no_more_than_twice_the_threads(
    free_port: Ports, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many threads as the pool has are put beside, and no more."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(microservice_module, "STUCK_AFTER", 0.02)
    port = free_port()
    server = server_of(TCPTransport(port=port), gate.handler(timeout=0.05))
    async with running(server, threads=2) as microservice, calling(port) as client:
        for stuck in (2, 4, 4):
            calls = [client.asend("hang") for _ in range(2)]
            await asyncio.gather(*calls, return_exceptions=True)
            await stuck_are(microservice, stuck)
        assert (threads_of(server), gate.entered) == (4, 4)
        gate.open.set()


async def stuck_are(microservice: Microservice, count: int) -> None:
    """Return when so many threads are stuck."""
    await until(lambda: microservice.stuck == count)


async def test_no_thread_can_be_started(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the system gives no thread, that is said, and the watch goes on."""
    monkeypatch.setattr(microservice_module, "WATCH_INTERVAL", 0.01)
    asked: list[float] = []

    def refuse(self: Threads, after: float) -> int:
        asked.append(after)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Threads, "relieve", refuse)
    async with running(server_of(FakeListener())):
        await until(lambda: len(asked) > 1)
    assert "No thread for one that hangs: can't start new thread" in caplog.text


async def test_hanging_thread_at_the_end(
    gate: Gate, caplog: pytest.LogCaptureFixture, free_port: Ports
) -> None:
    """A thread that hangs is left behind at the end, and reported."""
    port = free_port()
    server = server_of(TCPTransport(port=port), gate.handler(timeout=0.02))
    async with running(server), calling(port) as client:
        with pytest.raises(Exception, match="ran out of time"):
            await client.asend("hang")
    assert "A sync handler still runs" in caplog.text


# --- the end ----------------------------------------------------------------------


async def test_ended() -> None:
    """A server that gives up for good is named."""
    well, ill = FakeListener(), FakeListener(retry_attempts=0)
    servers = [server_of(well), server_of(ill)]
    async with running(*servers) as microservice:
        ended = asyncio.ensure_future(microservice.ended())
        await asyncio.sleep(0)
        ill.intake.closed.set_result(NotConnected("broker gone"))
        assert await asyncio.wait_for(ended, 10) is servers[1]


async def test_nothing_to_end() -> None:
    """Without servers none gives up."""
    ended = asyncio.ensure_future(Microservice([]).ended())
    done, _ = await asyncio.wait([ended], timeout=0.01)
    assert not done
    ended.cancel()


async def test_drain_in_time() -> None:
    """Draining says whether all was finished."""
    async with running(server_of(FakeListener())) as microservice:
        assert await microservice.drain()


async def test_drain_out_of_time(
    free_port: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not finished in time is counted."""

    @message_pattern("hang")
    async def hang(data: Any) -> None:
        await asyncio.Event().wait()

    port = free_port()
    server = server_of(TCPTransport(port=port), hang)
    async with (
        running(server, drain_timeout=0.02) as microservice,
        calling(port) as client,
    ):
        call = asyncio.ensure_future(client.asend("hang"))
        await until(lambda: server.in_flight)
        assert not await microservice.drain()
        call.cancel()
    assert "1 messages were not finished in time." in caplog.text


async def test_server_that_cannot_drain(caplog: pytest.LogCaptureFixture) -> None:
    """An error while draining one server is logged, and the others drain."""
    broken, well = FakeListener(), FakeListener()
    async with running(server_of(broken), server_of(well)) as microservice:

        async def fail() -> None:
            raise ZeroDivisionError

        broken.intake.pause = fail  # type: ignore[method-assign]
        assert not await microservice.drain()
        assert well.intake.paused
    assert "A server could not drain." in caplog.text


async def test_failing_receiver_of_stopping() -> None:
    """A receiver of ``microservice_stopping`` that fails does not hinder the drain."""

    def fail(sender: Any, **_: Any) -> None:
        raise ZeroDivisionError

    microservice_stopping.connect(fail)
    try:
        async with running(server_of(FakeListener())) as microservice:
            logging.getLogger("django.dispatch").disabled = True
            assert await microservice.drain()
    finally:
        logging.getLogger("django.dispatch").disabled = False
        microservice_stopping.disconnect(fail)


async def test_clients_are_closed(free_port: Ports) -> None:
    """The clients that handlers used on this loop are closed with the servers."""
    port = free_port()
    client = client_of(TCPTransport(port=port))
    async with running(server_of(TCPTransport(port=port), echo), clients=[client]):
        assert await client.asend("echo", 1) == 1
    assert client.status == Status.CLOSED
