"""Names that mean harm, and what of them reaches the log: rows 52 and 56."""

import json
import logging
from typing import Any

import pytest

from django_microservices.wire.packets import NO_HANDLER

from .hostile import (
    KB,
    ask,
    served,
)
from .peers import Peer

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
