"""Coroutines that visit a portal's loop."""

import asyncio
import threading

LONG = 20.0
THREAD = "microservices-portal"


async def double(number: int) -> int:
    """Take a turn of the loop, then answer."""
    await asyncio.sleep(0)
    return 2 * number


async def fail_over_there() -> None:
    """Raise."""
    raise ZeroDivisionError


class Forever:
    """A coroutine that runs until it is cancelled, and says so."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        """Run."""
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


def join_threads() -> None:
    """Wait until no portal's thread runs."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(LONG)
            assert not thread.is_alive()


class Stubborn:
    """A coroutine that takes no notice of being cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()

    async def __call__(self) -> None:
        """Run."""
        while True:
            self.started.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue
