"""A ``manage.py`` command in a process of its own, read line by line."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0


class Command:
    """A running command; ``lines`` holds what was read of it so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, part: str) -> str:
        """Read until a line holds ``part``, and return the line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip())
                if part in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"There is no {part!r} in {self.lines}.")

    async def ended(self) -> int:
        """Read to the end and return the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip())
            return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    @property
    def text(self) -> str:
        """Everything that was read."""
        return "\n".join(self.lines)


@asynccontextmanager
async def manage(
    *args: str, database: Path, path: Path | None = None, **settings: Any
) -> AsyncIterator[Command]:
    """Run ``manage.py`` with ``settings`` over those of the tests, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "manage.py",
        *args,
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.management.settings",
            "TEST_SETTINGS": json.dumps(settings),
            "TEST_DATABASE": str(database),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path)))),
            "PYTHONWARNINGS": "error",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


class Peer:
    """A connection as Nest's client makes it, on which several requests may run."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, pattern: str) -> None:
        """Send a request whose id is its pattern."""
        text = json.dumps({"pattern": pattern, "data": None, "id": pattern})
        self.writer.write(f"{len(text)}#{text}".encode())

    async def reply(self) -> Any:
        """Read a reply."""
        async with asyncio.timeout(PATIENCE):
            length = await self.reader.readuntil(b"#")
            return json.loads(await self.reader.readexactly(int(length[:-1])))


@asynccontextmanager
async def peer_of(port: int) -> AsyncIterator[Peer]:
    """Connect to a server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


def is_open(port: int) -> bool:
    """Whether somebody accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def closed(port: int) -> None:
    """Return when nobody accepts connections any more."""
    async with asyncio.timeout(PATIENCE):
        while is_open(port):  # noqa: ASYNC110 - a port tells nobody
            await asyncio.sleep(0.01)
