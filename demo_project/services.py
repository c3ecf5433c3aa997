"""Child processes that are started, watched and ended together."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import Any

from .environment import HERE

PATIENCE = 10.0  # seconds for an orderly end

Process = asyncio.subprocess.Process


class ServiceEnded(Exception):
    """A service ended by itself; the text says which and how."""


class Services:
    """The children, last started last; :meth:`stop` makes every wait end."""

    def __init__(self) -> None:
        self._children: dict[str, Process] = {}
        self._stop = asyncio.Event()

    async def start(self, name: str, *arguments: str, settings: str) -> None:
        """Start ``python -m arguments`` under settings of its own."""
        process = await self._spawn(name, arguments, settings)
        print(f"The {name} is process {process.pid}.", flush=True)

    async def run(self, name: str, *arguments: str, settings: str) -> bool:
        """Run what ends by itself; return False if the stop came first.

        Raises :class:`ServiceEnded` where it failed.
        """
        process = await self._spawn(name, arguments, settings)
        if not await self._unless_stopped(process.wait()):
            return False
        del self._children[name]
        if process.returncode:
            raise _ended(name, process)
        return True

    async def _spawn(
        self, name: str, arguments: Sequence[str], settings: str
    ) -> Process:
        self._children[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            cwd=HERE.parent,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": settings},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, who then end them in order
        )
        return self._children[name]

    async def watch(self, wait: Awaitable[Any]) -> bool:
        """Wait for something; return False if the stop came first.

        Raises :class:`ServiceEnded` when a child ended before.
        """
        return await self._unless_stopped(wait, *map(self._fails, self._children))

    async def _fails(self, name: str) -> None:
        process = self._children[name]
        await process.wait()
        raise _ended(name, process)

    async def _unless_stopped(self, *waits: Awaitable[Any]) -> bool:
        stopped = asyncio.ensure_future(self._stop.wait())
        tasks = [stopped, *map(asyncio.ensure_future, waits)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if stopped in done:
            return False
        for task in done:
            task.result()
        return True

    def stop(self) -> None:
        """End every wait; said twice, also whatever still runs."""
        if self._stop.is_set():
            for process in self._running():
                process.kill()
        self._stop.set()

    async def end(self) -> None:
        """End all, the last one started first; by force what takes too long."""
        self._stop.set()
        for process in reversed(self._running()):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()

    def _running(self) -> list[Process]:
        return [child for child in self._children.values() if child.returncode is None]


def _ended(name: str, process: Process) -> ServiceEnded:
    code = process.returncode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
    return ServiceEnded(f"The {name} ended {how}, so everything stops.")
