"""What a client makes of replies that are cut, broken or wrong: rows 3, 6 and 7."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from django_microservices import (
    ConnectionLost,
    MessageTimeout,
    MicroserviceError,
    Status,
)
from django_microservices.endpoints.client import Client
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from tests.endpoints.ends import calling, until

from .calls import (
    answer_of,
    hello,
    is_whole,
    outcome_of,
    session_of,
)
from .proxy import Proxy

Ports = Callable[[], int]


# --- row 3: cut in the midst of a frame -------------------------------------------


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize("reset", [True, False])
async def test_cut_at_every_byte(proxy: Proxy, *, reset: bool) -> None:
    """3: Wherever replies are cut, nothing is wrong or hangs; the next call works."""
    async with calling(proxy.port) as client:
        await client.asend("echo", 7)
    await until(lambda: not proxy.pipes)
    whole = len(frame(hello())) + len(frame(answer_of(7, "x" * 20)))
    proxy.reset = reset
    outcomes = []
    for length in range(whole + 1):
        async with calling(proxy.port) as client:
            gone = asyncio.Event()
            client.on("disconnect", gone.set)
            proxy.cut_after = length
            outcomes.append(await outcome_of(client.asend("echo", 7)))
            await gone.wait()
            proxy.cut_after = None
            assert await client.asend("echo", 8) == 8
    assert {type(outcome) for outcome in outcomes} <= {ConnectionLost, int}
    assert {o for o in outcomes if isinstance(o, int)} <= {7}
    assert isinstance(outcomes[0], ConnectionLost)
    if not reset:  # a reset may overtake what was sent before it
        assert outcomes[-1] == 7


# --- rows 6 and 7: a server that answers wrongly ----------------------------------


class WrongServer(asyncio.Protocol):
    """Speaks frames, and answers as the test says: ``answer(server, packet)``."""

    def __init__(self, answer: Callable[["WrongServer", Any], None]) -> None:
        self.answer = answer
        self.framing = JsonSocket(1024 * 1024)
        self.kept: list[Any] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each packet."""
        for text in self.framing.receive(data):
            self.answer(self, json.loads(text))

    def say(self, text: bytes) -> None:
        """Send a frame."""
        self.transport.write(frame(text))


@contextlib.asynccontextmanager
async def answering(
    port: int, answer: Callable[[WrongServer, Any], None]
) -> AsyncIterator[None]:
    """Run such a server inside the block."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: WrongServer(answer), "127.0.0.1", port)
    try:
        yield
    finally:
        listener.close()


JUNK = (
    b"null", b"7", b'"text"', b"[]", b"[[[]]]", b"{}", b'{"id":null}', b'{"id":[]}',
    b'{"id":{}}', b'{"id":true,"response":1}', b'{"response":1,"isDisposed":true}',
    b'{"err":{},"id":"unknown"}', b'{"err":1,"isDisposed":1,"id":9}',
    b'{"id":"dm-none","response":1}', b'{"status":"error","err":"x","id":"?"}',
    b'{"isDisposed":"yes","id":"unknown","response":{"a":[1,2]}}',
)  # fmt: skip


async def test_junk_around_the_answers(free_port: Ports) -> None:
    """6: JSON that is no answer, 10,000 texts of it, disturbs no call."""
    port, chance = free_port(), random.Random(6)

    def answer(server: WrongServer, packet: Any) -> None:
        for _ in range(100):
            server.say(chance.choice(JUNK))
        server.say(answer_of(packet["data"], packet["id"]))

    async with answering(port, answer), calling(port) as client:
        for number in range(100):
            assert await client.asend("echo", number) == number
        assert session_of(client).pending == {}


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 100,
        b"999999999#",
        b"-1#{}",
        b"3#abc",
        b'3#"\xff"',
        b'5#{"a":',
        b"########",
    ],
)
async def test_garbage(proxy: Proxy, client: Client, garbage: bytes) -> None:
    """6: Bytes that are no answer are a typed error; the connection is replaced."""
    await client.asend("echo")
    call = asyncio.ensure_future(client.asend("hang", timeout=2))
    await until(lambda: session_of(client).pending)
    proxy.inject(garbage)
    assert isinstance(await outcome_of(call), ConnectionLost)
    assert await client.asend("echo", 1) == 1
    assert len(proxy.accepted) == 2


@pytest.mark.usefixtures("no_jitter")
async def test_random_bytes(proxy: Proxy, client: Client) -> None:
    """6: Random bytes, hundreds of times, never crash, hang or answer a call."""
    chance = random.Random(6)
    for _ in range(80):
        await client.asend("echo")
        call = asyncio.ensure_future(client.asend("hang", timeout=0.05))
        await until(lambda: session_of(client).pending)
        proxy.inject(chance.randbytes(chance.randint(1, 200)))
        outcome = await outcome_of(call)
        assert isinstance(outcome, ConnectionLost | MessageTimeout)
        proxy.cut(reset=True)
        await until(lambda: is_whole(client))
    assert await client.asend("echo", 1) == 1


@pytest.mark.usefixtures("no_jitter")
async def test_corrupt_frames(proxy: Proxy, client: Client) -> None:
    """6: Frames whose structure was broken on the way never make a wrong value."""
    chance = random.Random(6)

    def corrupt(data: bytes) -> bytes:
        changed = bytearray(data)
        places = [n for n, byte in enumerate(data) if byte in b'#{}":,']
        changed[chance.choice(places)] = chance.choice(b'#{}":, \xff')
        return bytes(changed)

    outcomes = []
    for number in range(100):
        await client.asend("echo")
        proxy.corrupt = corrupt
        outcomes.append(await outcome_of(client.asend("echo", [number], timeout=0.05)))
        proxy.corrupt = bytes
        if not isinstance(outcomes[-1], list):
            proxy.cut(reset=True)
            await until(lambda: client.status != Status.CONNECTED)
    wrong = [o for n, o in enumerate(outcomes) if isinstance(o, list) and o != [n]]
    assert wrong == []
    assert all(isinstance(outcome, MicroserviceError | list) for outcome in outcomes)


async def test_unknown_and_repeated_ids(free_port: Ports) -> None:
    """7: However answers are mixed up and repeated, each call gets its own."""
    port, chance = free_port(), random.Random(7)

    def answer(server: WrongServer, packet: Any) -> None:
        if packet["pattern"] == "dm-cancel":
            return
        server.kept.append(packet)
        if len(server.kept) < 50:
            return
        chance.shuffle(server.kept)
        for kept in server.kept:
            texts = [answer_of(kept["data"], kept["id"])] * chance.randint(1, 3)
            texts += [answer_of("wrong", "unknown"), answer_of("wrong", None)]
            for text in texts:
                server.say(text)
        server.kept.clear()

    async with answering(port, answer), calling(port) as client:
        for begin in range(0, 3000, 500):
            calls = (client.asend("echo", n) for n in range(begin, begin + 500))
            assert await asyncio.gather(*calls) == [*range(begin, begin + 500)]
        session = session_of(client)
        assert session.pending == {}
        assert session.ignored >= 6000
