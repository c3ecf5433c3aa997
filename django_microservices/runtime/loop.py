"""Runs a Microservice until it is told to stop."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ..concurrency.handover import new_event_loop
from ..concurrency.shutdown import before_exit
from ..exceptions import MicroserviceError
from .microservice import Microservice

logger = logging.getLogger(__name__)

OK, FAILED, REFUSED, KILLED = 0, 1, 3, 130
"""Exit codes: drained; ended or left work undone; could not start; stopped at once."""


def run(microservice: Microservice, ready: Callable[[Microservice], None]) -> int:
    """Start, call ``ready``, wait for SIGTERM or SIGINT, drain; return an exit code.

    A second signal ends the process at once, whatever still runs. On a thread other
    than the main one, where no signal arrives, the interpreter's exit drains instead.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(_run(microservice, ready))
        if code == KILLED:
            end_process(code)
    return code


def end_process(code: int) -> None:
    """End here and now: neither threads nor tasks can hold it up."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


async def _run(
    microservice: Microservice, ready: Callable[[Microservice], None]
) -> int:
    stop = Stop()
    with stop.listening():
        try:
            if not await stop.races(microservice.start()):
                await microservice.stop()
                return OK
        except MicroserviceError as error:
            logger.critical("Cannot start: %s", error)
            return REFUSED
        ready(microservice)
        ended = asyncio.ensure_future(microservice.ended())
        await asyncio.wait((ended, stop.first), return_when=asyncio.FIRST_COMPLETED)
        gave_up = ended.done()
        ended.cancel()
        return await _finish(microservice, stop, FAILED if gave_up else OK)


async def _finish(microservice: Microservice, stop: "Stop", code: int) -> int:
    draining = asyncio.ensure_future(_drain(microservice))
    await asyncio.wait((draining, stop.second), return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        logger.warning("Stopped at once.")
        return KILLED
    return code if draining.result() else FAILED


async def _drain(microservice: Microservice) -> bool:
    drained = await microservice.drain()
    await microservice.stop()
    return drained


class Stop:
    """The first and the second SIGTERM or SIGINT."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.second: asyncio.Future[None] = loop.create_future()

    def listening(self) -> AbstractContextManager[None]:
        """Take the signals over from Python's defaults, or else the process's end."""
        if threading.current_thread() is threading.main_thread():
            return self._signals()
        return before_exit(self.receive)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.receive)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def receive(self) -> None:
        """Count a signal."""
        for future in (self.first, self.second):
            if not future.done():
                future.set_result(None)
                return

    async def races(self, starting: Coroutine[Any, Any, None]) -> bool:
        """Whether ``starting`` ended before a signal came."""
        task = asyncio.ensure_future(starting)
        await asyncio.wait((task, self.first), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return False
        task.result()
        return True
