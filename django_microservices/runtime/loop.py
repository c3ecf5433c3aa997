"""Runs a Microservice until it is told to stop."""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from ..concurrency.portal import new_event_loop
from ..exceptions import MicroserviceError
from .microservice import Microservice

logger = logging.getLogger(__name__)

OK, FAILED, REFUSED, KILLED = 0, 1, 3, 130
"""Exit codes: drained; ended or left work undone; could not start; stopped at once."""


def run(microservice: Microservice, ready: Callable[[Microservice], None]) -> int:
    """Start, call ``ready``, wait for SIGTERM or SIGINT, drain; return an exit code.

    A second signal stops at once.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_run(microservice, ready))


async def _run(
    microservice: Microservice, ready: Callable[[Microservice], None]
) -> int:
    stop = Stop()
    stop.listen()
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
    draining = asyncio.ensure_future(microservice.drain())
    await asyncio.wait((draining, stop.second), return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        logger.warning("Stopped at once.")
        return KILLED
    drained = draining.result()
    await microservice.stop()
    return code if drained else FAILED


class Stop:
    """The first and the second SIGTERM or SIGINT."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.second: asyncio.Future[None] = loop.create_future()

    def listen(self) -> None:
        """Take the signals over from Python's defaults."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.receive)

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
