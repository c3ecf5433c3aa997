"""What a client makes of connections and servers that fail: rows 1 to 9 and 12."""

import asyncio
import contextlib
import itertools
import json
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from django_microservices import (
    ConnectionLost,
    MessageTimeout,
    MicroserviceError,
    NotConnected,
    Status,
    message_pattern,
)
from django_microservices.endpoints import backoff as backoff_module
from django_microservices.endpoints import connection as connection_module
from django_microservices.endpoints.backoff import CLIENT_CAP, Backoff
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.session import Session
from django_microservices.transports.tcp import link as link_module
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from tests.endpoints.ends import calling, serving, serving_elsewhere, until
from tests.endpoints.scripts import run_script
from tests.faults.processes import process_serving
from tests.faults.proxy import Proxy

Ports = Callable[[], int]


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


cancelled: list[Any] = []


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never, and note that nobody waits any more."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append(data)


@pytest.fixture(autouse=True)
def _begin_anew() -> None:
    cancelled.clear()


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again at once."""
    monkeypatch.setattr(backoff_module, "BASE", 0.0)
    monkeypatch.setattr(random, "uniform", lambda least, most: 0.0)


@pytest_asyncio.fixture
async def proxy(free_port: Ports) -> AsyncIterator[Proxy]:
    """Give a proxy to a server of ours."""
    target = free_port()
    async with (
        serving(target, echo, hang, concurrency=2000),
        Proxy(free_port(), target) as proxy,
    ):
        yield proxy


@pytest_asyncio.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """Give a client behind it."""
    async with calling(proxy.port) as client:
        yield client


def session_of(client: Client) -> Session:
    """Return the session that serves this loop."""
    connection = client._connections.present(asyncio.get_running_loop())
    assert connection is not None
    assert connection.session is not None
    return connection.session


def is_whole(client: Client) -> bool:
    """Whether it is connected, by a link that has not just been refused."""
    if client.status != Status.CONNECTED:
        return False
    link: Any = session_of(client).link
    return not link.lost


def now() -> float:
    """Tell the loop's time."""
    return asyncio.get_running_loop().time()


# --- row 1: the server is absent --------------------------------------------------


async def test_absent_server(free_port: Ports) -> None:
    """1: An absent server is a quick typed error; when it appears, calls succeed."""
    port = free_port()
    async with calling(port) as client:
        begun = now()
        with pytest.raises(NotConnected):
            await client.asend("echo")
        assert now() - begun < 0.5
        async with serving(port, echo):
            begun = now()
            while True:
                with contextlib.suppress(NotConnected):
                    assert await client.asend("echo", 7) == 7
                    break
                await asyncio.sleep(0.1)
            assert now() - begun < 10


# --- row 2: the server dies -------------------------------------------------------


async def test_reset_with_1000_pending(proxy: Proxy, client: Client) -> None:
    """2: When the connection is reset, all that is pending fails at once."""
    await client.asend("echo")
    calls = [asyncio.ensure_future(client.asend("hang", n)) for n in range(1000)]
    session = session_of(client)
    await until(lambda: len(session.pending) == 1000)
    begun = now()
    proxy.cut(reset=True)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert now() - begun < 2
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


# --- row 3: cut in the midst of a frame -------------------------------------------


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize("reset", [True, False])
async def test_cut_at_every_byte(proxy: Proxy, *, reset: bool) -> None:
    """3: Wherever replies are cut, nothing is wrong or hangs; the next call works."""
    async with calling(proxy.port) as client:
        await client.asend("echo", 7)
    await until(lambda: not proxy.pipes)
    whole = len(frame(_hello())) + len(frame(_answer(7, "x" * 20)))
    proxy.reset = reset
    outcomes = []
    for length in range(whole + 1):
        async with calling(proxy.port) as client:
            gone = asyncio.Event()
            client.on("disconnect", gone.set)
            proxy.cut_after = length
            outcomes.append(await _outcome(client.asend("echo", 7)))
            await gone.wait()
            proxy.cut_after = None
            assert await client.asend("echo", 8) == 8
    assert {type(outcome) for outcome in outcomes} <= {ConnectionLost, int}
    assert {o for o in outcomes if isinstance(o, int)} <= {7}
    assert isinstance(outcomes[0], ConnectionLost)
    if not reset:  # a reset may overtake what was sent before it
        assert outcomes[-1] == 7


def _hello() -> bytes:
    return b'{"response":{"v":1},"isDisposed":true,"id":"dm-hello"}'


def _answer(value: Any, id_: str | None) -> bytes:
    packet = {"response": value, "isDisposed": True, "id": id_}
    return json.dumps(packet, separators=(",", ":")).encode()


async def _outcome(call: Any) -> Any:
    try:
        return await call
    except MicroserviceError as error:
        return error


# --- row 4: a half-open peer ------------------------------------------------------


async def test_half_open(
    proxy: Proxy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4: A server that fell silent is found although nothing is pending."""
    monkeypatch.setattr(link_module, "SILENCE", 0.1)
    monkeypatch.setattr(link_module, "PATIENCE", 0.05)
    monkeypatch.setattr(link_module, "CHECK", 0.05)
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


async def test_pending_calls_of_a_half_open_peer(proxy: Proxy, client: Client) -> None:
    """4: What is pending at a silent server ends at its deadline."""
    await client.asend("echo")
    proxy.is_black = True
    begun = now()
    with pytest.raises(MessageTimeout):
        await client.asend("echo", timeout=0.2)
    assert 0.2 <= now() - begun < 0.4


async def test_stopped_process(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4: A process that hangs, whose kernel still acknowledges, is found as well."""
    monkeypatch.setattr(link_module, "SILENCE", 0.1)
    monkeypatch.setattr(link_module, "PATIENCE", 0.05)
    monkeypatch.setattr(link_module, "CHECK", 0.05)
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


async def test_slow_handler(proxy: Proxy, client: Client) -> None:
    """5: 100 calls to a slow handler end at their deadline, and all are cancelled."""
    await client.asend("echo")
    begun = now()
    calls = (client.asend("hang", n, timeout=0.3) for n in range(100))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {MessageTimeout}
    assert 0.3 <= now() - begun < 0.8
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
        server.say(_answer(packet["data"], packet["id"]))

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
    assert isinstance(await _outcome(call), ConnectionLost)
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
        outcome = await _outcome(call)
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
        outcomes.append(await _outcome(client.asend("echo", [number], timeout=0.05)))
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
            texts = [_answer(kept["data"], kept["id"])] * chance.randint(1, 3)
            texts += [_answer("wrong", "unknown"), _answer("wrong", None)]
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


def test_herd_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """9: Of 200 clients, down for 20 s, at most 10 % come back in the same 100 ms."""
    chance = random.Random(9)
    monkeypatch.setattr(random, "uniform", chance.uniform)
    runs = [[back_after(20.0, chance) for _ in range(200)] for _ in range(100)]
    peaks = [most_in([time for time, _ in run], 0.1) for run in runs]
    assert sum(peak > 20 for peak in peaks) <= 5
    assert max(time for run in runs for time, _ in run) <= 2 * CLIENT_CAP
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
