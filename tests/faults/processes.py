"""Starts a server in a process of its own, to be killed, stopped or drained."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextlib.asynccontextmanager
async def process_of(script: str, *arguments: str) -> AsyncIterator[Process]:
    """Run ``tests.faults.<script>`` inside the block; it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.faults.{script}", *arguments),
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


def process_serving(port: int) -> AbstractAsyncContextManager[Process]:
    """Serve on a TCP port."""
    return process_of("served", str(port))
