"""What a peer may send that means harm, and how little it gets by it.

The rows are those of ``reference/reliability.md`` 2c and 2d. A bound on time is ten
times the figure that is promised; the benchmarks report the figure itself.
"""

import asyncio
import contextlib
import json
import logging
import random
import select
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, OperationalError
from django.test import override_settings

from django_microservices import (
    InvalidReply,
    MessageContext,
    MessageTimeout,
    RemoteError,
    event_pattern,
    message_pattern,
)
from django_microservices.exceptions import InvalidMessage
from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp import handshake
from django_microservices.wire.packets import NO_HANDLER
from tests.endpoints.ends import calling, serving
from tests.interop.process import LineChild

from .peers import SOON, Peer

KB, MB = 1024, 1024 * 1024
UNREADABLE = {"status": "error", "message": "The message could not be read."}
INTERNAL = {"status": "error", "message": "Internal server error"}


@message_pattern("echo", "émoji😀")
async def echo(data: Any) -> Any:
    """Answer with the payload."""
    return data


@message_pattern({"cmd": "who", "of": "a"})
async def who(data: Any) -> str:
    """Answer to an object pattern."""
    return "who"


@message_pattern("pattern")
async def pattern(context: MessageContext[Any]) -> str:
    """Answer with the pattern as it was received."""
    return context.pattern


@event_pattern("fails")
async def fails(context: MessageContext[Any]) -> None:
    """Fail, with what the peer sent in the error."""
    raise ZeroDivisionError


@contextlib.asynccontextmanager
async def served(port: int, **options: Any) -> AsyncIterator[Any]:
    """Serve the handlers above."""
    transport = TCPTransport(port=port, **options)
    handlers = (echo, who, pattern, fails)
    async with serving(port, *handlers, transport=transport) as server:
        yield server


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    """A port for a server."""
    return free_port()


async def lives(port: int) -> None:
    """See that an honest peer is served."""
    peer = await Peer.connect(port)
    peer.request("still here")
    assert (await peer.read())["response"] == "still here"
    peer.close()


async def ask(port: int, text: bytes) -> Any:
    """Send one text; return the answer, or ``None`` when we were cut."""
    peer = await Peer.connect(port)
    peer.send(text)
    try:
        return await peer.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        peer.close()


# --- 41, 42: much announced, much sent ---


class Weighed:
    """A server in a process of its own."""

    def __init__(self, port: int, options: dict[str, Any]) -> None:
        self.port = port
        self.child = LineChild(
            [
                *(sys.executable, "-m", f"{__package__}.hostile_server"),
                *(str(port), json.dumps(options)),
            ],
            cwd=Path(__file__).resolve().parents[2],
            environment={
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "PYTHONASYNCIODEBUG": "",
            },
        )

    def status(self, name: str) -> int:
        """Return a figure of the kernel's, in bytes."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * KB

    def growth(self) -> Callable[[], int]:
        """Return a function that says by how much memory has grown at most."""
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")  # resets the peak
        before = self.status("VmRSS")
        return lambda: self.status("VmHWM") - before

    def connect(self) -> socket.socket:
        """Connect a peer."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SOON)

    def ask(self, peer: socket.socket) -> None:
        """Have one request answered."""
        request = b'{"pattern":"echo","data":1,"id":"1"}'
        peer.sendall(b"%d#%b" % (len(request), request))
        assert peer.recv(KB).endswith(b'"id":"1"}')


@pytest.fixture
def weigh(port: int) -> Iterator[Callable[..., Weighed]]:
    """Return a function that starts a server whose memory is weighed."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Weighed:
            weighed = Weighed(port, options)
            stack.callback(weighed.child.close)
            return weighed

        yield start


def pour(peer: socket.socket, first: bytes, then: bytes, most: int) -> float:
    """Write until we are cut; return the seconds that it took."""
    begun = time.monotonic()
    peer.setblocking(False)
    sent, rest = 0, first + then
    try:
        while sent < most:
            _, writable, _ = select.select([], [peer], [], SOON)
            assert writable, "The server neither reads nor cuts."
            written = peer.send(rest)
            sent += written
            rest = rest[written:] or then
    except ConnectionError:
        return time.monotonic() - begun
    pytest.fail(f"{sent} bytes were taken.")


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"999999999#", b"x" * 64 * KB), (b"", b"1" * 64 * KB)],
    ids=["announced", "endless"],
)
def test_too_much(weigh: Callable[..., Weighed], first: bytes, then: bytes) -> None:
    """999999999 announced, or 128 MB without '#': cut at once, for less than 1 MB."""
    server = weigh()
    with server.connect() as honest, server.connect() as peer:
        server.ask(honest)
        server.ask(peer)
        grown = server.growth()
        assert pour(peer, first, then, 128 * MB) < 0.1
        server.ask(honest)
        assert grown() < MB


async def test_announced_length_is_refused_unseen(port: int) -> None:
    """The length alone is refused: not one byte of the frame is waited for."""
    async with served(port):
        peer = await Peer.connect(port)
        begun = time.monotonic()
        peer.writer.write(b"1048577#")
        assert await peer.ended() == b""
        assert time.monotonic() - begun < 0.1
        peer.close()
        await lives(port)


# --- 39: answers that are never read ---


def test_answers_never_read(weigh: Callable[..., Weighed]) -> None:
    """A reader that never reads costs at most twice the cap, and nobody else waits."""
    cap = 8 * MB
    server = weigh(max_send_buffer_size=cap)
    request = json.dumps({"pattern": "echo", "data": "x" * 60_000, "id": "1"}).encode()
    frame = b"%d#%b" % (len(request), request)
    with server.connect() as honest, server.connect() as peer:
        server.ask(honest)
        server.ask(peer)
        grown = server.growth()
        peer.setblocking(False)
        stuck = False
        rest = frame
        while not stuck:
            try:
                written = peer.send(rest)
            except BlockingIOError:
                stuck = not select.select([], [peer], [], 0.3)[1]
            except ConnectionError:
                break
            else:
                rest = rest[written:] or frame
            server.ask(honest)
        assert grown() < 2 * cap


# --- 43: lengths that lie ---


@pytest.mark.parametrize(
    "stream",
    [
        b"5#{}",
        b"1#{}{}",
        b"-5#{}",
        b"0x5#{}",
        b" 2#{}",
        b"2.9#{}",
        b"12abc#{}",
        b"#{}",
        b"0#",
        b"1" + b"0" * 30 + b"#{}",
        '14#{"data":"😀"}{'.encode(),
    ],
)
async def test_lengths_that_lie(port: int, stream: bytes) -> None:
    """Every one ends its connection, now or with what follows; nobody hangs."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.writer.write(stream + b"#" * 100)
        assert await peer.ended() == b""
        peer.close()
        await lives(port)


# --- 44: tiny frames ---


async def test_tiny_frames(port: int) -> None:
    """50,000 in one go are all answered, and no turn of the loop is long."""
    async with served(port, max_send_buffer_size=0):
        loop = asyncio.get_running_loop()
        longest, last = 0.0, loop.time()

        def tick() -> None:
            nonlocal longest, last
            longest, last = max(longest, loop.time() - last), loop.time()
            turn[0] = loop.call_later(0.001, tick)

        turn = [loop.call_soon(tick)]
        request = b'{"pattern":"?","id":1}'
        answer = json.dumps({"id": 1, "status": "error", "err": NO_HANDLER})
        text = answer.replace(": ", ":").replace(", ", ",").encode()
        size = len(b"%d#" % len(text)) + len(text)
        peer = await Peer.connect(port)
        logging.disable(logging.CRITICAL)
        try:
            peer.writer.write(b"%d#%b" % (len(request), request) * 50_000)
            async with asyncio.timeout(60):
                data = await peer.reader.readexactly(size * 50_000)
        finally:
            logging.disable(logging.NOTSET)
            turn[0].cancel()
        assert data.count(text) == 50_000
        assert longest < 0.5
        peer.close()


# --- 45: what is nearly JSON ---


@pytest.mark.parametrize(
    "payload",
    [b"NaN", b"[Infinity]", b"01", b'"\x01"', b"'a'", b"{a:1}", b"[1,]", b"/**/1", b""],
)
async def test_no_json(port: int, payload: bytes) -> None:
    """A text that is no JSON ends its connection."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        assert await ask(port, text) is None
        assert await ask(port, b"\xef\xbb\xbf" + b'{"pattern":"echo","id":"1"}') is None
        await lives(port)


@pytest.mark.parametrize("id_", [b"1e999", b"1" * 5000, b"NaN"])
async def test_no_id(port: int, id_: bytes) -> None:
    """So does an id that cannot be told back."""
    async with served(port):
        assert await ask(port, b'{"pattern":"echo","data":1,"id":' + id_ + b"}") is None
        await lives(port)


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'"\\ud83d"', "\ud83d"),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b"18446744073709551616", 2**64),
        (b"1.0", 1.0),
        (b"-0", 0),
        (b'"\\u0000"', "\0"),
        (b' [ 1 , "2" ] ', [1, "2"]),
    ],
)
async def test_unusual_json(port: int, payload: bytes, answer: Any) -> None:
    """What is JSON is read, in one way."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        assert (await ask(port, text))["response"] == answer


@pytest.mark.parametrize("payload", [b"1e999", b"[-1e999]", b"1" * 5000])
async def test_numbers_out_of_range(port: int, payload: bytes) -> None:
    """A number that nobody could hold is an error of this one message."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"1"}'
        error = (await ask(port, text))["err"]
        assert error["message"] == "Not readable as JSON: A number is out of range."
        await lives(port)


@pytest.mark.parametrize("text", [b"null", b"5", b'"x"', b"[]", b"{}", b'{"id":"1"}'])
async def test_no_message(port: int, text: bytes) -> None:
    """JSON that is no message is dropped and counted; the connection stays."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(text)
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 1
        peer.close()


async def test_rest_of_the_read_is_dropped(port: int) -> None:
    """What follows a text that is no JSON is not looked at."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.send(b"{", {"pattern": "echo", "data": 1, "id": "1"})
        assert await peer.ended() == b""
        peer.close()


async def test_rest_of_a_backlog_is_dropped(port: int) -> None:
    """Nor where there was so much that it had to wait."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.writer.write(b"1#{" + b'27#{"pattern":"echo","id":"1"}' * 2000)
        assert await peer.ended() == b""
        peer.close()
        await lives(port)


# --- 46: other protocols ---


@pytest.mark.parametrize(
    ("stream", "guess"),
    [
        (b"3#\xff\xfe\xfd", "not UTF-8"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "looks like HTTP"),
        (b"POST /#x HTTP/1.1\r\n\r\n", "looks like HTTP"),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", "looks like TLS"),
    ],
)
async def test_other_protocols(
    port: int, stream: bytes, guess: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are cut, with one line in the log that names the mistake."""
    async with served(port):
        peer = await Peer.connect(port)
        peer.writer.write(stream)
        assert await peer.ended() == b""
        peer.close()
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert guess in record.getMessage()


# --- 47: nesting ---


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Nest."""
    return opening * depth + closing * depth


@pytest.mark.parametrize("depth", [65, 1000, 1025, 100_000, 1_000_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
async def test_nesting(port: int, depth: int, brackets: tuple[bytes, bytes]) -> None:
    """Deep payloads are an error reply, never a stack that overflows."""
    opening, closing = brackets
    payload = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
    async with served(port, max_frame_size=8 * MB):
        text = b'{"pattern":"echo","data":' + payload + b',"id":"7"}'
        packet = await ask(port, text)
        assert packet == {"err": UNREADABLE, "isDisposed": True, "id": "7"}
        await lives(port)


async def test_nesting_that_is_allowed(port: int) -> None:
    """64 levels, the packet's own among them, are echoed."""
    async with served(port):
        text = b'{"pattern":"echo","data":' + nested(63) + b',"id":"7"}'
        assert (await ask(port, text))["response"] == json.loads(nested(63))
        text = b'{"pattern":"echo","data":' + nested(64) + b',"id":"7"}'
        assert (await ask(port, text))["err"] == UNREADABLE


@pytest.mark.parametrize("member", [b"pattern", b"id", b"metadata"])
async def test_nesting_elsewhere(port: int, member: bytes) -> None:
    """Wherever it is, it harms nobody."""
    async with served(port):
        text = b'{"data":1,"' + member + b'":' + nested(5000) + b"}"
        peer = await Peer.connect(port)
        peer.send(text)
        peer.request("after")
        with contextlib.suppress(asyncio.IncompleteReadError):
            assert (await peer.read())["response"] == "after"
        peer.close()
        await lives(port)


async def test_nesting_in_an_event(port: int) -> None:
    """A deep event is dropped and counted: nobody awaits an answer."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(b'{"pattern":"echo","data":' + nested(100) + b"}")
        peer.send(b'{"pattern":"echo","data":' + nested(5000) + b"}")
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 2
        peer.close()


async def test_nesting_beside_an_id_that_is_none(port: int) -> None:
    """What is too deep and cannot be answered, its id being no text, is dropped."""
    async with served(port) as server:
        peer = await Peer.connect(port)
        peer.send(b'{"pattern":"echo","data":' + nested(100) + b',"id":[1]}')
        peer.request("after")
        assert (await peer.read())["response"] == "after"
        assert server._intake.dropped == 1
        peer.close()


@pytest.mark.parametrize(
    ("depth", "error", "text"),
    [
        (100, InvalidReply, "Nested deeper than 64"),
        (100_000, RemoteError, "Internal server error"),
    ],
)
async def test_nesting_in_an_answer(
    port: int, depth: int, error: type[Exception], text: str
) -> None:
    """A value that nests deeply is an error on the way back as well."""
    value: Any = []
    for _ in range(depth):
        value = [value]

    @message_pattern("deep")
    async def deep(data: Any) -> Any:
        return value

    async with serving(port, deep), calling(port) as client:
        with pytest.raises(error, match=text):
            await client.asend("deep")


# --- 48: many connections ---


def open_peers(server: Weighed, count: int, stack: contextlib.ExitStack) -> None:
    """Connect so many, and see that all were accepted."""
    for _ in range(count):
        last = stack.enter_context(server.connect())
    server.ask(last)


MANY = {"max_connections": 10_000, "max_connections_per_address": 10_000}


def test_idle_connections_are_cheap(weigh: Callable[..., Weighed]) -> None:
    """An idle plain connection costs at most 10 KB."""
    server = weigh(**MANY)
    with contextlib.ExitStack() as stack:
        open_peers(server, 50, stack)
        before = server.status("VmRSS")
        open_peers(server, 400, stack)
        assert (server.status("VmRSS") - before) / 400 < 10 * KB


def test_idle_tls_connections_are_cheap(
    weigh: Callable[..., Weighed], tmp_path: Path
) -> None:
    """An idle TLS connection costs at most 30 KB."""
    leaf = trustme.CA().issue_cert("127.0.0.1")
    tls = {"key": str(tmp_path / "key.pem"), "cert": str(tmp_path / "cert.pem")}
    leaf.private_key_pem.write_to_path(tls["key"])
    leaf.cert_chain_pems[0].write_to_path(tls["cert"])
    server = weigh(**MANY, tls_options=tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:

        def connect(count: int) -> int:
            for _ in range(count):
                raw = server.connect()
                peer = stack.enter_context(context.wrap_socket(raw))
                server.ask(peer)  # the handshake is over, on both sides
            return server.status("VmRSS")

        before = connect(30)
        assert (connect(200) - before) / 200 < 30 * KB


async def test_connections_over_the_limit(port: int) -> None:
    """Those above the limit are refused, those below it are served."""
    async with served(port, max_connections_per_address=50):
        peers = [await Peer.connect(port) for _ in range(80)]
        ended = [asyncio.ensure_future(peer.ended()) for peer in peers[50:]]
        assert set(await asyncio.gather(*ended)) == {b""}
        for peer in peers[:50]:
            peer.request("served")
            assert (await peer.read())["response"] == "served"
        for peer in peers:
            peer.close()


# --- 49: slowness ---


def test_default_patience() -> None:
    """A frame has 10 s in all, TLS's greeting 5 s."""
    assert TCPTransport().incomplete_message_timeout <= 10
    assert handshake.SECONDS <= 5


# --- 52: names ---


NAMES = [
    "*",
    ">",
    "#",
    "+",
    "a.*",
    "$SYS",
    "a b",
    "a\0b",
    "a\r\nb",
    " ",
    "",
    "__proto__",
    "constructor",
    "toString",
    "x" * 64 * KB,
    "\ud83d",
    "echo\0",
    "Echo",
    '{"cmd":"who"}',
    {"__proto__": {"cmd": "who"}},
    {"cmd": "who", "of": "a", "more": 1},
    ["cmd", "who"],
    {str(number): number for number in range(30)},
    0,
    -1.5,
    2**70,
    None,
    True,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
async def test_names(port: int, name: Any) -> None:
    """A name that was not registered finds nothing, whatever is in it."""
    async with served(port):
        text = json.dumps({"pattern": name, "data": 1, "id": "7"}).encode()
        packet = await ask(port, text)
        assert packet == {"id": "7", "status": "error", "err": NO_HANDLER}


@pytest.mark.parametrize(
    "name",
    [
        {"of": "a", "cmd": "who"},
        '{"cmd":"who","of":"a"}',
        '{ "of" : "a", "cmd" : "who" }',
    ],
)
async def test_one_route(port: int, name: Any) -> None:
    """An object pattern has one route, as with Nest, in whatever order it comes."""
    async with served(port):
        text = json.dumps({"pattern": name, "data": 1, "id": "7"}).encode()
        assert (await ask(port, text))["response"] == "who"


async def test_names_are_not_kept(port: int) -> None:
    """However many unknown names come, the server remembers a bounded number."""
    logging.disable(logging.CRITICAL)
    try:
        async with served(port) as server:
            peer = await Peer.connect(port)
            for number in range(5000):
                peer.send({"pattern": f"unknown-{number}", "id": number})
            for _ in range(5000):
                await peer.read()
            assert not server._routes._requests
            peer.close()
    finally:
        logging.disable(logging.NOTSET)


# --- 55: what an error tells ---


SECRETS = ("s3cret", "/srv/app", "SELECT", "Traceback", "not a secret", ".py")


class Unprintable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise ZeroDivisionError("s3cret")


def chained(error: BaseException) -> BaseException:
    """Give an error a cause and notes."""
    error.__cause__ = ValueError("s3cret cause")
    error.add_note("s3cret note")
    return error


ERRORS: list[Callable[[], BaseException]] = [
    lambda: Exception("s3cret"),
    lambda: KeyError("s3cret"),
    lambda: FileNotFoundError(2, "No such file", "/srv/app/settings.py"),
    lambda: OperationalError("SELECT * FROM s3cret"),
    lambda: IntegrityError("SELECT s3cret"),
    lambda: DatabaseError("SELECT s3cret"),
    lambda: FieldError("Cannot resolve s3cret"),
    lambda: ImproperlyConfigured("SECRET_KEY = 'not a secret'"),
    lambda: InvalidMessage("s3cret"),
    lambda: MessageTimeout("s3cret"),
    lambda: RemoteError({"s3cret": "of another service"}),
    lambda: TimeoutError("s3cret"),
    lambda: AssertionError("s3cret"),
    lambda: RecursionError("s3cret"),
    lambda: UnicodeDecodeError("utf-8", b"s3cret", 0, 1, "s3cret"),
    lambda: ExceptionGroup("s3cret", [ValueError("s3cret")]),
    lambda: StopIteration("s3cret"),
    lambda: MemoryError("s3cret"),
    lambda: TypeError("s3cret() missing 1 required positional argument: 'SELECT'"),
    lambda: chained(RuntimeError("s3cret")),
    Unprintable,
]


def error_of(number: int) -> BaseException:
    """Make one of the errors."""
    return ERRORS[number % len(ERRORS)]()


@message_pattern("raise")
async def raise_(data: int) -> None:
    """Raise an error of the list."""
    raise error_of(data)


@message_pattern("raise-in-thread")
def raise_in_thread(data: int) -> None:
    """Raise on a thread."""
    raise error_of(data)


@message_pattern("raise-later")
async def raise_later(data: int) -> AsyncIterator[int]:
    """Raise after an item."""
    yield data
    raise error_of(data)


@message_pattern("unencodable")
async def unencodable(data: int) -> Any:
    """Answer with what cannot travel."""
    return [object(), {("s3cret",): 1}, {1j: "s3cret"}][data % 3]


RAISING = ("raise", "raise-in-thread", "raise-later", "unencodable")


@pytest.mark.parametrize("debug", [True, False])
async def test_errors_tell_nothing(port: int, debug: bool) -> None:  # noqa: FBT001
    """Of 10,000 errors none tells a text, a path, SQL or a setting, whatever DEBUG.

    Half of them come on each of the two loops.
    """
    handlers = (raise_, raise_in_thread, raise_later, unencodable)
    chance = random.Random(55)
    logging.disable(logging.CRITICAL)
    try:
        with override_settings(DEBUG=debug):
            async with serving(port, *handlers):
                peer = await Peer.connect(port)
                seen = await all_errors(peer, chance, 5_000)
                peer.close()
    finally:
        logging.disable(logging.NOTSET)
    assert seen == {"Internal server error", "The handler ran out of time."}


async def all_errors(peer: Peer, chance: random.Random, count: int) -> set[str]:
    """Have ``count`` calls fail, some with odd payloads; return the messages."""
    messages: set[str] = set()
    ended = 0
    for start in range(0, count, 100):
        for number in range(start, start + 100):
            data = chance.randrange(10_000)
            peer.request(data, str(number), pattern=chance.choice(RAISING))
        while ended < start + 100:
            packet = await peer.read()
            text = json.dumps(packet)
            assert not any(secret in text for secret in SECRETS), text
            if "err" in packet:
                ended += 1
                assert packet["err"].keys() == {"status", "message"}
                messages.add(packet["err"]["message"])
    return messages


# --- 56: the log ---


EVIL = "a\r\n2026-01-01 CRITICAL forged\x1b[31m\x00\u2028b"


@pytest.mark.parametrize(
    "packet",
    [
        {"pattern": EVIL, "data": 1, "id": "7"},
        {"pattern": EVIL, "data": 1},
        {"pattern": {EVIL: EVIL}, "data": EVIL, "id": EVIL},
        {"pattern": "fails", "data": EVIL},
        {
            "pattern": "fails",
            "data": 1,
            "metadata": {"dm-request-id": EVIL, EVIL: EVIL},
        },
        {"pattern": f"dm-{EVIL}", "id": EVIL},
        {"pattern": "echo", "data": 1, "metadata": {"dm-timeout": EVIL}},
    ],
)
async def test_log_lines(
    port: int, packet: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer names begins no second line, and reaches no terminal."""
    caplog.set_level(logging.DEBUG, logger="django_microservices")
    async with served(port):
        peer = await Peer.connect(port)
        peer.send(packet)
        peer.request("after", "after")
        while (await peer.read())["id"] != "after":
            pass
        peer.close()
    for record in caplog.records:
        if record.name.startswith("django_microservices"):
            assert record.getMessage().isprintable(), record.getMessage()


async def test_bytes_in_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does what is no message at all."""
    async with served(port):
        for stream in (b"\r\n\x1b[2J#", b'8#{"\r\n":\x00}', EVIL.encode()):
            peer = await Peer.connect(port)
            peer.writer.write(stream)
            await peer.ended()
            peer.close()
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(records) == 3
    assert all(record.getMessage().isprintable() for record in records)
