"""Runs a Microservice until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from ..concurrency.handover import new_event_loop
from ..concurrency.inbox import Inbox
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
        return runner.run(_run(microservice, ready))


def end_process(code: int) -> None:
    """End here and now: neither threads nor tasks can hold it up."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # interrupted in the midst of writing
            stream.flush()
    os._exit(code)


def leave_out_of_collections() -> None:
    """Spare the garbage collector what was imported: it stays as long as the process.

    Each message makes a few objects, so that full collections come often, and every
    one of them would walk through all of Django.
    """
    gc.collect()
    gc.freeze()


async def _run(
    microservice: Microservice, ready: Callable[[Microservice], None]
) -> int:
    stop = Stop()
    with stop.listening():
        try:
            started = await stop.races(microservice.start())
        except MicroserviceError as error:
            logger.critical("Cannot start: %s", error)
            return REFUSED
        gave_up = False
        try:
            if started:
                leave_out_of_collections()
                ready(microservice)
                gave_up = await stop.races(microservice.ended())
        finally:
            drained = await microservice.drain()
            await microservice.stop()
        return FAILED if gave_up or not drained else OK


class Stop:
    """The first SIGTERM or SIGINT, to wait for; a second ends the process."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self._inbox = Inbox(loop)
        self._was_signalled = False
        self._process = os.getpid()

    def listening(self) -> AbstractContextManager[None]:
        """Take the signals over from Python's defaults, or else the process's end."""
        if threading.current_thread() is threading.main_thread():
            return self._signals()
        return before_exit(self.receive)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        # Not the loop's own handlers: a message handler that blocks the loop would
        # keep the second signal from being heard.
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _signalled(self, number: int, _: object) -> None:
        if os.getpid() != self._process:  # a child that a handler forked
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self._was_signalled:
            logger.warning("Stopped at once.")
            end_process(KILLED)
        self._was_signalled = True
        self._inbox.put(self.receive)

    def receive(self) -> None:
        """Begin to stop; on the loop."""
        if not self.first.done():
            self.first.set_result(None)

    async def races(self, work: Coroutine[Any, Any, object]) -> bool:
        """Whether ``work`` ended before a signal came; raises what it raised."""
        task = asyncio.ensure_future(work)
        await asyncio.wait((task, self.first), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.wait((task,))
        return False
