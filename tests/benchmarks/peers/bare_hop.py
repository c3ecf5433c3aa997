"""A sync caller over the bare client: a hop to a loop's thread, and back on a lock.

Argument: the server's URL.
"""

import asyncio
import sys
import threading
from _thread import allocate_lock
from typing import Any

import uvloop

from .bare import connect, port_of
from .commands import obey_sync

TIMEOUT = 5.0

loop = uvloop.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
client = asyncio.run_coroutine_threadsafe(connect(port_of(sys.argv[1])), loop).result()


def send(pattern: Any, data: Any) -> Any:
    """Send a request, and block until its answer is here."""
    answers: list[Any] = []
    waiting = allocate_lock()
    waiting.acquire()

    def done(answer: Any) -> None:
        answers.append(answer)
        waiting.release()

    loop.call_soon_threadsafe(client.call, pattern, data, done)
    if not waiting.acquire(timeout=TIMEOUT):
        raise TimeoutError
    return answers[0]


obey_sync(send)
