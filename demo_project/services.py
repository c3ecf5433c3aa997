"""Child processes that are started, watched and ended together."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from .environment import HERE

PATIENCE = 10.0  # seconds for an orderly end

Process = asyncio.subprocess.Process


class ServiceEnded(Exception):
    """A service ended by itself; the text says which and how."""


class Services:
    """The children, last started last; :meth:`stop` makes every wait end.

    They end by themselves when this process does, even by force: see ``leash.py``.
    """

    def __init__(self) -> None:
        self._children: dict[str, Process] = {}
        self._stop = asyncio.Event()
        self._leash, self._held = os.pipe()  # nobody writes: held until we end
        self._copying: list[asyncio.Task[None]] = []

    async def start(self, name: str, *arguments: str, settings: str) -> None:
        """Start ``python -m arguments`` under settings of its own."""
        process = await self._spawn_python(name, arguments, settings)
        print(f"The {name} is process {process.pid}.", flush=True)

    async def start_until(
        self, words: str, name: str, *arguments: str, settings: str
    ) -> bool:
        """Start what says when it is ready; return False if the stop came first.

        Raises :class:`ServiceEnded` when it ended before.
        """
        pipe = asyncio.subprocess.PIPE
        process = await self._spawn_python(name, arguments, settings, stdout=pipe)
        print(f"The {name} is process {process.pid}.", flush=True)
        said = asyncio.Event()
        copy = _copy(process, words, said)
        self._copying.append(asyncio.create_task(copy))
        return await self.watch(said.wait())

    async def start_program(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start a program of others, whose output is of no interest."""
        process = await self._spawn(
            name,
            command,
            environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        print(f"The {name} is process {process.pid}.", flush=True)

    async def run(self, name: str, *arguments: str, settings: str) -> bool:
        """Run what ends by itself; return False if the stop came first.

        Raises :class:`ServiceEnded` where it failed.
        """
        process = await self._spawn_python(name, arguments, settings)
        if not await self._unless_stopped(process.wait()):
            return False
        del self._children[name]
        if process.returncode:
            raise _ended(name, process)
        return True

    async def _spawn_python(
        self, name: str, arguments: Sequence[str], settings: str, **output: int
    ) -> Process:
        command = [sys.executable, "-m", *arguments]
        environment = {"DJANGO_SETTINGS_MODULE": settings}
        return await self._spawn(name, command, environment, **output)

    async def _spawn(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        **output: int,
    ) -> Process:
        self._children[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "demo_project.leash",
            *command,
            cwd=HERE.parent,
            env={**os.environ, **environment},
            stdin=self._leash,
            start_new_session=True,  # Ctrl-C is for us, who then end them in order
            **output,
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
        await asyncio.gather(*self._copying)

    def _running(self) -> list[Process]:
        return [child for child in self._children.values() if child.returncode is None]


async def _copy(process: Process, words: str, said: asyncio.Event) -> None:
    """Show what a child writes, until it ends; note when it has said the words."""
    assert process.stdout is not None
    async for line in process.stdout:
        sys.stdout.write(line.decode())
        sys.stdout.flush()
        if words.encode() in line:
            said.set()


def _ended(name: str, process: Process) -> ServiceEnded:
    code = process.returncode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
    return ServiceEnded(f"The {name} ended {how}, so everything stops.")
