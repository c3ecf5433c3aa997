"""One socket: what a tick says, a peer that is behind, and the end."""

import asyncio
from typing import Any

import pytest

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports import stream as module
from django_microservices.transports.stream import (
    EAGER,
    EAGER_BYTES,
    HIGH_WATER,
    TLS_HIGH_WATER,
    Backpressure,
    BatchedStream,
    Drained,
)

from .peers import eventually


class Socket(asyncio.Transport):
    """A transport that keeps what is written, and what it is told."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.written: list[bytes] = []
        self.told: list[str] = []
        self.high: int | None = None
        self.unread = 0
        self.closing = False

    def set_write_buffer_limits(
        self,
        high: int | None = None,
        low: int | None = None,
    ) -> None:
        """Remember."""
        self.high = high

    def get_write_buffer_size(self) -> int:
        """Say how much is unread."""
        return self.unread

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written.append(data)

    def pause_reading(self) -> None:
        """Remember."""
        self.told.append("pause")

    def resume_reading(self) -> None:
        """Remember."""
        self.told.append("resume")

    def is_closing(self) -> bool:
        """Whether the other side has gone."""
        return self.closing

    def abort(self) -> None:
        """Remember."""
        self.told.append("abort")


class Stream(BatchedStream):
    """A stream that counts its ends."""

    ends = 0
    most_unread = 1000

    def ended(self) -> None:
        """Count."""
        super().ended()
        self.ends += 1


@pytest.fixture
def sock() -> Socket:
    """Give a socket."""
    return Socket()


@pytest.fixture
async def stream(sock: Socket) -> Stream:
    """Give a stream on it."""
    stream = Stream(asyncio.get_running_loop())
    stream.connection_made(sock)
    return stream


# --- what a tick says ---


async def test_a_tick_is_written_together(stream: Stream, sock: Socket) -> None:
    """What is said in one tick goes out when it ends, in one piece."""
    stream.write(b"a")
    stream.write(b"b")
    assert sock.written == []
    await asyncio.sleep(0)
    stream.write(b"c")
    await asyncio.sleep(0)
    assert sock.written == [b"ab", b"c"]


@pytest.mark.parametrize(
    ("part", "count"), [(b"x", EAGER), (b"x" * (EAGER_BYTES // 2), 2)]
)
async def test_much_is_written_at_once(
    stream: Stream, sock: Socket, part: bytes, count: int
) -> None:
    """Many messages, and many bytes, go out before the tick ends."""
    for _ in range(count - 1):
        stream.write(part)
    assert sock.written == []
    stream.write(part)
    assert sock.written == [part * count]
    stream.flush()
    assert len(sock.written) == 1


async def test_high_water_of_tls(stream: Stream, sock: Socket) -> None:
    """The end of a handshake, which is still unsent, is no sign of a slow peer."""
    secure = Socket(sslcontext="any")
    stream.use(secure)
    assert (sock.high, secure.high) == (HIGH_WATER, TLS_HIGH_WATER)
    stream.write(b"x")
    stream.flush()
    assert (sock.written, secure.written) == ([], [b"x"])


# --- a peer that is behind ---


async def test_who_waits_for_the_peer(stream: Stream) -> None:
    """All go on when it has read, and not before it has read enough."""
    await stream.drained()
    stream.pause_writing()
    waiting = [asyncio.ensure_future(stream.drained()) for _ in range(2)]
    await asyncio.sleep(0)
    stream.resume_writing()
    stream.pause_writing()
    for _ in range(5):  # ticks
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    stream.resume_writing()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)


async def test_one_who_gives_up_waiting(stream: Stream) -> None:
    """The others wait on."""
    stream.pause_writing()
    impatient, patient = (asyncio.ensure_future(stream.drained()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait((impatient,))
    stream.resume_writing()
    await asyncio.wait_for(patient, 10)


async def test_waiting_is_free() -> None:
    """What nobody awaits was never begun, so that nothing is said of it."""
    waited = []

    async def wait(*args: int) -> None:
        waited.append(args)

    Drained(wait)
    await Drained(wait, 1, 2)
    assert waited == [(1, 2)]


async def test_peer_that_reads_nothing(
    stream: Stream, sock: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves unread for long does not fill the memory."""
    monkeypatch.setattr(module, "UNREAD_PATIENCE", 0.01)
    stream.pause_writing()
    for sock.unread in (1000, 1001):
        stream.write(b"x")
        stream.flush()
        assert sock.told == []
    await eventually(lambda: stream.reason)
    assert stream.reason == "the server left more than 1000 bytes unread"
    assert sock.told == ["abort"]


@pytest.mark.parametrize("left", [5000, 1000])
async def test_peer_that_reads_on(
    stream: Stream, sock: Socket, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """More than that is no fault of a peer that reads, or has read enough."""
    monkeypatch.setattr(module, "UNREAD_PATIENCE", 0.001)
    stream.pause_writing()
    sock.unread = 5000 + 63
    stream.write(b"x" * sock.unread)
    stream.flush()
    first = stream._behind
    sock.unread = left
    await eventually(lambda: stream._behind is not first)
    assert (sock.told, stream.reason) == ([], None)
    assert (stream._behind is None) == (left == 1000)


async def test_end_of_a_peer_that_is_behind(stream: Stream, sock: Socket) -> None:
    """Nothing is looked at when there is no connection any more."""
    stream.pause_writing()
    sock.unread = 1001
    stream.write(b"x")
    stream.flush()
    stream.connection_lost(None)
    timer: Any = stream._behind
    assert timer.cancelled()


# --- a peer that is held back ---


async def test_reading_is_paused(stream: Stream, sock: Socket) -> None:
    """Reading stops and goes on."""
    deaf = []
    for change in (stream.pause_reading, stream.resume_reading):
        change()
        deaf.append(stream.deaf)
    assert deaf == [True, False]
    assert sock.told == ["pause", "resume"]


async def test_reading_from_a_peer_that_goes(stream: Stream, sock: Socket) -> None:
    """A socket that is closing, or closed, is left alone."""
    sock.closing = True
    stream.pause_reading()
    stream.resume_reading()
    stream.connection_lost(None)
    sock.closing = False
    stream.pause_reading()
    stream.resume_reading()
    assert sock.told == []


# --- the end ---


@pytest.mark.parametrize(
    ("error", "reason"),
    [(None, "the server closed the connection"), (OSError("reset"), "reset")],
)
async def test_end(stream: Stream, error: Exception | None, reason: str) -> None:
    """Everybody learns why."""
    stream.pause_writing()
    waiting = asyncio.ensure_future(stream.drained())
    await asyncio.sleep(0)
    stream.connection_lost(error)
    with pytest.raises(ConnectionLost, match=reason):
        await waiting
    assert str(await stream.closed) == reason
    assert stream.ends == 1


async def test_abort(stream: Stream, sock: Socket) -> None:
    """Nothing more is written, and the first reason counts."""
    stream.write(b"x")
    stream.abort("first")
    stream.abort("second")
    stream.write(b"y")
    await asyncio.sleep(0)
    stream.connection_lost(None)
    assert (sock.written, stream.reason, stream.ends) == ([], "first", 1)


async def test_abort_before_the_beginning() -> None:
    """It is harmless where there is no socket yet."""
    stream = Stream(asyncio.get_running_loop())
    stream.abort("too late")
    assert stream.lost


async def test_reason_is_for_subclasses_to_say() -> None:
    """Who waits for a peer that is gone learns what only the connection knows."""
    with pytest.raises(NotImplementedError):
        Backpressure(asyncio.get_running_loop()).why()
