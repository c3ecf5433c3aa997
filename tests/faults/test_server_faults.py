"""What a server makes of signals, and of handlers that fail.

Rows 24 (one process), 28 and 29.
"""

import asyncio
import itertools
import json
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import (
    ConnectionLost,
    NotConnected,
    RemoteError,
    message_pattern,
)
from django_microservices.concurrency.threads import Threads
from django_microservices.endpoints.client import Client
from django_microservices.transports.tcp import TCPTransport
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from tests.endpoints.ends import calling, running, server_of, serving, until
from tests.faults.processes import process_serving

Ports = Callable[[], int]
THREADS = 8


@message_pattern("echo")
def echo(data: Any) -> Any:
    """Return what came."""
    return data


# --- row 24: a signal under load --------------------------------------------------


class Load:
    """Calls without a pause, and keeps how they ended."""

    def __init__(self, client: Client, pattern: str) -> None:
        self.client = client
        self.pattern = pattern
        self.answered = 0
        self.wrong: list[Any] = []
        self.errors: list[BaseException] = []

    async def run(self, number: int) -> None:
        """Call until the server is gone."""
        while True:
            number += 1
            try:
                answer = await self.client.asend(self.pattern, number)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)
                return
            self.answered += 1
            if answer != number:
                self.wrong.append(answer)


@pytest.mark.parametrize("pattern", ["echo", "slow", "sync"])
async def test_signal_under_load(free_port: Ports, pattern: str) -> None:
    """24: After SIGTERM all that was accepted is answered; then it ends with 0."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        load = Load(client, pattern)
        callers = asyncio.gather(*(load.run(n) for n in range(100)))
        await until(lambda: load.answered > 300)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(callers, 30)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    # What came too late was never sent: nothing that was sent is lost.
    assert {type(error) for error in load.errors} == {NotConnected}
    assert load.wrong == []


async def test_signal_with_a_stranger(free_port: Ports) -> None:
    """24: A peer that knows nothing of goodbyes gets all its answers, then the end."""
    port = free_port()
    async with process_serving(port) as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(200):
            packet = {"pattern": "slow", "data": number, "id": str(number)}
            writer.write(frame(json.dumps(packet).encode()))
        await writer.drain()
        process.send_signal(signal.SIGTERM)
        framing, replies = JsonSocket(1024 * 1024), []
        async with asyncio.timeout(30):
            while data := await reader.read(65536):
                replies += [json.loads(text) for text in framing.receive(data)]
        writer.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert sorted(int(reply["id"]) for reply in replies) == [*range(200)]
    assert all(int(reply["id"]) == reply["response"] for reply in replies)


async def test_signal_with_a_stranger_that_goes_on(free_port: Ports) -> None:
    """24: One that never stops asking gets all its answers as well, then the end."""
    port = free_port()
    async with process_serving(port) as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            for number in itertools.count():
                packet = {"pattern": "slow", "data": number, "id": str(number)}
                writer.write(frame(json.dumps(packet).encode()))
                await asyncio.sleep(0.001)

        asking = asyncio.ensure_future(ask())
        framing = JsonSocket(1024 * 1024)
        replies: list[Any] = []
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                if not replies:
                    process.send_signal(signal.SIGTERM)
                replies += [json.loads(text) for text in framing.receive(data)]
        asking.cancel()
        writer.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    # One that was taken and not answered would leave a gap.
    assert sorted(int(reply["id"]) for reply in replies) == [*range(len(replies))]
    assert all(int(reply["id"]) == reply["response"] for reply in replies)


async def test_second_signal(free_port: Ports) -> None:
    """24: A second signal ends it at once."""
    port = free_port()
    async with process_serving(port) as process, calling(port) as client:
        await client.asend("echo")
        call = asyncio.ensure_future(client.asend("hang"))
        await asyncio.sleep(0.05)
        lost = asyncio.Event()
        client.on("disconnect", lost.set)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(lost.wait(), 10)  # it said goodbye, and drains
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 130
        with pytest.raises(ConnectionLost):
            await call


# --- row 28: handlers that raise --------------------------------------------------


async def test_handlers_that_raise(free_port: Ports) -> None:
    """28: Each failure is answered, redacted; the messages beside it are unaffected."""

    @message_pattern("fail")
    def fail(data: int) -> int:
        if data % 2:
            raise ZeroDivisionError(f"SELECT secret_{data} FROM /etc/passwd")
        return data

    @message_pattern("afail")
    async def afail(data: int) -> int:
        return fail(data)

    port = free_port()
    async with serving(port, fail, afail) as server, calling(port) as client:
        calls = [
            client.asend(pattern, number)
            for pattern in ("fail", "afail")
            for number in range(200)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert not server.in_flight
    errors = [answer for answer in answers if isinstance(answer, RemoteError)]
    assert [a for a in answers if isinstance(a, int)] == [*range(0, 200, 2)] * 2
    assert len(errors) == 200
    internal = {"status": "error", "message": "Internal server error"}
    assert all(error.error == internal for error in errors)


# --- row 29: handlers that hang ---------------------------------------------------


async def test_hanging_async_handlers(free_port: Ports) -> None:
    """29: 100 hung handlers in 100 places: others are served after the timeout."""
    cancelled: list[int] = []

    @message_pattern("hang", timeout=0.3)
    async def hang(data: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(data)

    port = free_port()
    async with (
        serving(port, hang, echo, concurrency=100) as server,
        calling(port) as client,
    ):
        calls = [asyncio.ensure_future(client.asend("hang", n)) for n in range(100)]
        await until(lambda: len(server.in_flight) == 100)
        assert await client.asend("echo", 7) == 7
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(error) for error in errors} == {
        "tested: hang: The handler ran out of time."
    }
    assert (len(cancelled), server.timed_out) == (100, 100)


@pytest.mark.usefixtures("watchful")
async def test_hanging_sync_handlers(free_port: Ports) -> None:
    """29: When every thread hangs, others take their place; they are counted."""
    go_on = threading.Event()

    @message_pattern("hang")
    def hang(data: int) -> None:
        assert go_on.wait(30)

    port = free_port()
    server = server_of(TCPTransport(port=port), hang, echo, concurrency=4)
    async with running(server, threads=4) as microservice, calling(port) as client:
        calls = (client.asend("hang", n, timeout=0.1) for n in range(4))
        await asyncio.gather(*calls, return_exceptions=True)
        assert await client.asend("echo", 7) == 7
        await until(lambda: microservice.stuck == 4)
        assert isinstance(server.threads, Threads)
        assert server.threads.busy == 4
        go_on.set()
        await until(lambda: microservice.stuck == 0)
