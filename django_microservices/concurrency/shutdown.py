"""The end of the interpreter, for a loop that does not run on the main thread."""

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Callable, Iterator

from .handover import Waiter
from .inbox import Inbox


@contextlib.contextmanager
def holding_up_exit() -> Iterator[None]:
    """Have the interpreter's exit wait until the block is left."""
    left: Waiter[None] = Waiter()
    atexit.register(left.wait)
    try:
        yield
    finally:
        left.set_result(None)
        atexit.unregister(left.wait)


def is_exiting() -> bool:
    """Whether the interpreter's exit has begun."""
    return not threading.main_thread().is_alive()


@contextlib.contextmanager
def before_exit(stop: Callable[[], None]) -> Iterator[None]:
    """Have the interpreter's exit call ``stop`` on the running loop, and wait.

    It waits until the block is left; ``stop`` may be called twice. Django's reloader
    runs a command on a daemon thread, where no signal arrives and which a reload would
    end in the midst of work.
    """
    inbox = Inbox(asyncio.get_running_loop())
    left: Waiter[None] = Waiter()

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            inbox.put(stop)
            left.wait()

    atexit.register(end)
    if is_exiting():  # which may have begun too early to call what was registered
        inbox.put(stop)
    try:
        yield
    finally:
        left.set_result(None)
        atexit.unregister(end)
