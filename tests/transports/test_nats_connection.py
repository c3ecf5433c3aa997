"""One connection to a NATS server, which is whatever the test needs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from django_microservices import ConnectionLost, MessageTooLarge, NotConnected
from django_microservices.exceptions import TransportRefused
from django_microservices.transports import stream
from django_microservices.transports.nats import NATSTransport
from django_microservices.transports.nats.connection import Connection
from django_microservices.transports.nats.protocol import Packet

from .nats_scripts import FakeServer
from .peers import eventually

Ports = Callable[[], int]


@asynccontextmanager
async def connected(server: FakeServer, **options: Any) -> AsyncIterator[Connection]:
    """Have a connection to a server that listens."""
    async with server:
        wire = NATSTransport(url=server.url, **options)
        async with wire.servers.connected() as connection:
            yield connection


@pytest.fixture
def fake(free_port: Ports) -> FakeServer:
    """Give a server that is not listening yet."""
    return FakeServer(free_port())


async def ended(connection: Connection) -> str:
    """Wait for the end of a connection; return why."""
    await asyncio.wait_for(asyncio.shield(connection.closed), 10)
    assert connection.reason is not None
    return connection.reason


# --- messages ---------------------------------------------------------------------


async def test_messages_reach_their_subscription(fake: FakeServer) -> None:
    """Each subscription gets what came by it; what is nobody's is dropped."""
    seen: list[tuple[str, bytes]] = []

    def noting(name: str) -> Callable[[Packet], None]:
        return lambda packet: seen.append((name, packet.body))

    async with connected(fake) as connection:
        one = connection.subscribe(b"one", noting("one"))
        two = connection.subscribe(b"two", noting("two"), b"group")
        await fake.hears(b"SUB two group %b\r\n" % two)
        fake.say(b"MSG two %b 1\r\n2\r\nMSG x 99 1\r\n9\r\n" % two)
        fake.say(b"MSG one %b 1\r\n1\r\n" % one)
        assert await connection.ping()
    assert seen == [("two", b"2"), ("one", b"1")]


async def test_subscription_that_is_forgotten(fake: FakeServer) -> None:
    """After that nothing comes any more, not even what was on its way."""
    seen: list[Packet] = []
    async with connected(fake) as connection:
        sid = connection.subscribe(b"one", seen.append)
        connection.forget(sid)
        connection.forget(sid)
        await fake.hears(b"UNSUB %b\r\n" % sid)
        fake.say(b"MSG one %b 1\r\n1\r\n" % sid)
        assert await connection.ping()
    assert seen == []
    assert fake.heard.count(b"UNSUB") == 1


async def test_what_a_tick_says_goes_out_together(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets are handed to the socket in one piece, many of them at once."""
    async with connected(fake) as connection:
        tapped = Tapped(connection.transport)
        monkeypatch.setattr(connection, "transport", tapped)
        for number in range(3):
            connection.publish(b"a", b"%d" % number)
        await asyncio.sleep(0)
        for number in range(stream.EAGER):
            connection.publish(b"b", b"%d" % number)
        connection.publish(b"c", b"x")
        await asyncio.sleep(0)
        connection.flush()
    counts = [written.count(b"PUB") for written in tapped.written]
    assert counts[:3] == [3, stream.EAGER, 1]


class Tapped:
    """A transport that keeps what is written, and may have its buffer full."""

    def __init__(self, transport: Any, unread: int = 0) -> None:
        self.written: list[bytes] = []
        self._transport = transport
        self._unread = unread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep it, and write it."""
        self.written.append(bytes(data))
        self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Say how much is unread."""
        return self._unread


async def test_message_over_max_payload(fake: FakeServer) -> None:
    """The server would hang up on it: it is refused here, with the limit."""
    async with connected(fake) as connection:
        connection.publish(b"a", b"x" * 1024)
        with pytest.raises(MessageTooLarge, match="1024"):
            connection.publish(b"a", b"x" * 1024, headers=b"x")


async def test_subjects_that_are_too_long(fake: FakeServer) -> None:
    """They are refused, since the server would hang up."""
    async with connected(fake) as connection:
        with pytest.raises(ValueError, match="too long"):
            connection.publish(b"x" * 3000, b"1", b"y" * 1001)
        assert await connection.ping()
    assert b"PUB" not in fake.heard


async def test_server_asks_for_a_sign_of_life(fake: FakeServer) -> None:
    """PING is answered."""
    async with connected(fake):
        fake.say(b"PING\r\n")
        await fake.hears(b"PONG\r\n")


async def test_news_of_the_server(fake: FakeServer) -> None:
    """A later INFO counts, as a limit that was changed."""
    async with connected(fake) as connection:
        fake.say(b'INFO {"max_payload":5}\r\n')
        assert await connection.ping()
        assert connection.max_payload == 5


async def test_sign_of_life_that_nobody_awaits(fake: FakeServer) -> None:
    """It may come after who asked has gone."""
    async with connected(fake) as connection:
        connection.ping().cancel()
        assert await connection.ping()


# --- a server that refuses --------------------------------------------------------


async def test_refused_subscription(fake: FakeServer) -> None:
    """What a user may not hear is an error of who listens."""
    async with connected(fake) as connection:
        fake.say(b"-ERR 'Permissions Violation for Subscription to \"a\"'\r\n")
        with pytest.raises(TransportRefused, match='Subscription to "a"'):
            await connection.settled()
        assert not connection.lost


async def test_server_says_why_it_hangs_up(
    fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is kept, and logged in one line."""
    async with connected(fake) as connection:
        fake.say(b"-ERR 'Slow\x1bConsumer'\r\n")
        assert await connection.ping()
        fake.writers[0].close()
        assert await ended(connection) == "Slow\\x1bConsumer"
    assert "Slow\\x1bConsumer" in caplog.text


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"MSG a 1 x\r\n", "unreadable"),
        (b"INFO nothing\r\n", "no way that can be read"),
        (b"INFO {}\r\n", "no way that can be read"),
        (b"INFO []\r\n", "no way that can be read"),
    ],
)
async def test_server_that_talks_nonsense(
    fake: FakeServer, said: bytes, why: str
) -> None:
    """A connection whose bytes mean nothing is ended."""
    async with connected(fake) as connection:
        fake.say(said)
        assert why in await ended(connection)


async def test_words_that_nobody_knows(fake: FakeServer) -> None:
    """What a newer server may say is passed over."""
    async with connected(fake) as connection:
        fake.say(b"+OK\r\nNEWS from the future\r\nPONG\r\nPONG\r\n")
        assert await connection.ping()


# --- a connection that is lost ----------------------------------------------------


async def test_nothing_is_sent_after_the_end(fake: FakeServer) -> None:
    """On a lost connection nothing is written, and waiting ends at once."""
    async with connected(fake) as connection:
        waiting = connection.ping()
        connection.abort("cut")
        connection.publish(b"a", b"1")
        connection.pause_reading()
        connection.resume_reading()
        assert not await waiting
        assert not await connection.ping()
        with pytest.raises(NotConnected, match="cut"):
            await connection.settled()
        assert await ended(connection) == "cut"
    assert b"PUB" not in fake.heard


async def test_end_while_something_is_to_be_written(fake: FakeServer) -> None:
    """What was said in the tick of the end is dropped."""
    async with connected(fake) as connection:
        connection.publish(b"a", b"1")
        connection.abort("cut")
        await ended(connection)
    assert b"PUB" not in fake.heard


async def test_server_that_goes_away(fake: FakeServer) -> None:
    """A server that hangs up without a word is named so."""
    async with connected(fake) as connection:
        assert await connection.ping()
        fake.writers[0].close()
        assert await ended(connection) == "the server closed the connection"


async def test_reset(fake: FakeServer) -> None:
    """A reset is named as the system names it."""
    async with connected(fake) as connection:
        connection.connection_lost(OSError("reset"))
        assert connection.reason == "reset"
        connection.closed = connection.loop.create_future()
        connection.transport.abort()


# --- a server that is mute --------------------------------------------------------

FAST = {"ping_interval": 0.05, "max_ping_out": 2}


async def test_mute_server_is_given_up(fake: FakeServer) -> None:
    """A server from which nothing is heard is given up, however open its socket."""
    async with connected(fake, **FAST) as connection:
        fake.lively = False
        assert "was silent for" in await ended(connection)


async def test_lively_server_is_kept(fake: FakeServer) -> None:
    """Anything at all is a sign of life."""
    async with connected(fake) as connection:
        fake.lively = False
        for _ in range(5):
            connection.heard = False
            fake.say(b"+OK\r\n")
            await eventually(lambda: connection.heard)
            connection.look()
        assert not connection.lost


async def test_silence_of_our_own_making(fake: FakeServer) -> None:
    """While we do not read, silence says nothing."""
    async with connected(fake) as connection:
        connection.pause_reading()
        for _ in range(5):
            connection.look()
        connection.resume_reading()
        connection.look()
        assert not connection.lost


async def test_leaving_a_mute_server(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end waits for a last sign of life, and not for long."""
    monkeypatch.setattr("django_microservices.transports.nats.connection.LINGER", 0.1)
    async with asyncio.timeout(10):
        async with connected(fake) as connection:
            fake.lively = False
    assert connection.closed.done()


# --- a server that is behind ------------------------------------------------------


async def test_server_that_reads_slowly(fake: FakeServer) -> None:
    """There is something to wait for as long as the server is behind, or gone."""
    async with connected(fake) as connection:
        connection.pause_writing()
        waiting = asyncio.ensure_future(connection.drained())
        another = asyncio.ensure_future(connection.drained())
        await asyncio.sleep(0)
        connection.resume_writing()
        await waiting
        await another
        connection.pause_writing()
        waiting = asyncio.ensure_future(connection.drained())
        await asyncio.sleep(0)
        connection.abort("cut")
        with pytest.raises(ConnectionLost, match="cut"):
            await waiting


async def test_server_that_reads_nothing(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves unread does not fill the memory."""
    monkeypatch.setattr(Connection, "most_unread", 1000)
    monkeypatch.setattr(stream, "UNREAD_PATIENCE", 0.01)
    async with connected(fake) as connection:
        connection.pause_writing()
        tapped = Tapped(connection.transport, unread=1001)
        monkeypatch.setattr(connection, "transport", tapped)
        connection.publish(b"a", b"1")
        connection.flush()
        await asyncio.wait_for(asyncio.shield(connection.closed), 10)
        assert connection.reason == "the server left more than 1000 bytes unread"


async def test_message_that_cannot_be_taken(
    fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad message is told of, and ends no connection."""
    seen: list[bytes] = []

    def take(packet: Packet) -> None:
        seen.append(packet.subject.decode().encode())

    async with connected(fake) as connection:
        sid = connection.subscribe(b">", take)
        fake.say(b"MSG \xff %b 1\r\n1\r\nMSG a %b 1\r\n1\r\n" % (sid, sid))
        assert await connection.ping()
    assert seen == [b"a"]
    assert "could not be taken" in caplog.text
