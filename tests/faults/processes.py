"""Starts a server in a process of its own, to be killed, stopped or drained."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextlib.asynccontextmanager
async def process_serving(port: int) -> AsyncIterator[Process]:
    """Run ``tests.faults.served`` inside the block; it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.served",
        str(port),
        cwd=ROOT,
        env=os.environ | {"PYTHONASYNCIODEBUG": ""},
        stdin=DEVNULL,
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
