"""How calls reach an event loop from other threads."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")

Item = Callable[[], object]


class Inbox:
    """Calls that other threads put to ``loop``: one wake-up for all that are waiting.

    They run in the order in which they were put, each in a context of the loop's own
    and not in its putter's. Who closes the loop calls :meth:`close` after that.
    """

    # Nothing is locked: under the GIL each step below is atomic. A putter appends and
    # then reads the flags; the drain clears its flag and then looks at the queue. So
    # either the drain's last look finds the item, or its putter finds the flag cleared
    # and wakes the loop. Two putters may both find it cleared, which costs one empty
    # drain. At the end of a loop the pairs are the same with the other flag: either
    # close()'s last look finds the item, or its putter finds the flag set, cannot wake
    # the loop, and takes the item back.

    __slots__ = ("_closed", "_items", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._scheduled = False
        self._closed = False

    def put(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have the loop call ``callback``; from any thread.

        Raises ``RuntimeError`` when the loop is closed, and then never calls it.
        """
        item = partial(callback, *args) if args else callback
        self._items.append(item)
        if not self._scheduled or self._closed:
            self._wake(item)

    def close(self) -> None:
        """Call what is still waiting; on the loop's thread, closed or not.

        A loop that goes on is woken for everything that comes later.
        """
        self._closed = True
        while self._items:
            self._call_all()

    def _wake(self, item: Item) -> None:
        self._scheduled = True
        try:
            # Given a context, it need not copy that of the putter.
            self._loop.call_soon_threadsafe(self._drain, context=Context())
        except RuntimeError:
            self._scheduled = False
            if self._take_back(item):
                raise

    def _take_back(self, item: Item) -> bool:
        try:
            self._items.remove(item)
        except ValueError:
            return False  # close() has called it
        return True

    def _drain(self) -> None:
        try:
            # What comes meanwhile waits for the loop's next turn, as with call_soon.
            self._call_all()
        finally:
            self._scheduled = False
            if self._items:
                self._scheduled = True
                self._loop.call_soon(self._drain, context=Context())

    def _call_all(self) -> None:
        items = self._items
        for _ in range(len(items)):
            try:
                item = items.popleft()
            except IndexError:
                return  # its putter took it back between our look and now
            try:
                item()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  as the loop does
                self._report(item, error)

    def _report(self, item: Item, error: BaseException) -> None:
        message = f"Exception in {item!r}, put to the loop by another thread"
        context = {"message": message, "exception": error}
        self._loop.call_exception_handler(context)
