"""Running a Microservice until a signal; the rest is in test_runmicroservice.py."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from django_microservices.runtime.loop import OK, run


class Starting:
    """A Microservice that is told to stop before it is ready."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def start(self) -> None:
        """Wait for what never comes."""
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("cancelled")

    async def stop(self) -> None:
        """Close what was opened."""
        self.told.append("stopped")


def test_signal_while_starting() -> None:
    """A signal during the start cancels it, and what was opened is closed."""
    microservice: Any = Starting()
    ready: Callable[[Any], None] = microservice.told.append
    assert run(microservice, ready) == OK
    assert microservice.told == ["cancelled", "stopped"]


def test_handlers_are_given_back() -> None:
    """Afterwards signals do what they did before."""
    before = signal.getsignal(signal.SIGINT)
    microservice: Any = Starting()
    run(microservice, microservice.told.append)
    assert signal.getsignal(signal.SIGINT) is before
