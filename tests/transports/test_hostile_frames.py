"""Frames that lie, and connections that are too many or too slow.

Rows 41, 43, 44, 46, 48 and 49.
"""

import asyncio
import json
import logging
import time

import pytest

from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp import handshake
from django_microservices.wire.packets import NO_HANDLER
from tests.conftest import Figures

from .hostile import (
    lives,
    served,
)
from .peers import Peer


async def test_announced_length_is_refused_unseen(port: int, figure: Figures) -> None:
    """The length alone is refused: not one byte of the frame is waited for."""
    async with served(port):
        peer = await Peer.connect(port)
        begun = time.monotonic()
        peer.writer.write(b"1048577#")
        assert await peer.ended() == b""
        figure("41: an announced length is refused", time.monotonic() - begun, 0.01)
        peer.close()
        await lives(port)


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


async def test_tiny_frames(port: int, figure: Figures) -> None:
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
        figure("44: the longest turn of the loop, of 50,000 frames", longest, 0.05)
        peer.close()


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
