"""A sync iterator, run whole on one thread and read on the loop."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextvars import copy_context
from typing import Generic, TypeVar

from .hygiene import run_in_context

T = TypeVar("T")

logger = logging.getLogger(__name__)


async def read(
    stream: "Stream[T]", submit: Callable[["Stream[T]"], None]
) -> AsyncGenerator[T]:
    """Submit a stream and yield its items; closing this ends the stream."""
    submit(stream)
    try:
        while True:
            while stream.items:
                yield stream.take()
            if stream.ended:
                break
            await stream.more()
        stream.raise_error()
    finally:
        await stream.close()


class Stream(Generic[T]):
    """The job that fills a bounded buffer, and what reads it on the loop.

    ``call_soon`` runs a callback on the loop, soon and together with others.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[T]],
        buffer: int,
        loop: asyncio.AbstractEventLoop,
        call_soon: Callable[[Callable[[], object]], None],
    ) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self._source = source
        self._buffer = buffer
        self._loop = loop
        self._call_soon = call_soon
        self._context = copy_context()
        self._room = threading.Condition(threading.Lock())
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._started = self._closed = False
        # Each flag is set before its condition is looked at once more, on either
        # side, so that no wake-up is lost; one too many does no harm.
        self._is_awaited = self._is_full = False

    @property
    def abandoned(self) -> bool:
        """Whether its reader has gone."""
        return self._closed

    # --- on the pool thread ---

    def run(self) -> None:
        """Produce, unless the reader has gone already."""
        with self._room:
            self._started = not self._closed
        if self._started:
            run_in_context(self._context, self._produce)

    def _produce(self) -> None:
        try:
            self._put_all(self._source())
        except BaseException as error:  # noqa: BLE001 - it travels to the reader
            self._error = error

    def _put_all(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._closed:
                    break
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _put(self, item: T) -> None:
        self.items.append(item)
        if self._is_awaited:
            self._is_awaited = False
            self._call_soon(self._wake)
        if len(self.items) >= self._buffer:
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        with self._room:
            self._is_full = True
            while len(self.items) >= self._buffer and not self._closed:
                self._room.wait()
                self._is_full = True
            self._is_full = False

    # --- on the loop ---

    def finish(self) -> None:
        """Note the producer's end; what it buffered can still be read."""
        self.ended = True
        self._wake()

    def refuse(self, error: Exception) -> None:
        """Note that the producer will never run."""
        self._error = error
        self.finish()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> T:
        """Remove the first item; a full buffer is refilled when it is half empty."""
        item = self.items.popleft()
        if self._is_full and len(self.items) <= self._buffer // 2:
            self._is_full = False
            with self._room:
                self._room.notify()
        return item

    async def more(self) -> None:
        """Wait until there is an item, or the end."""
        waiter = self._waiter = self._loop.create_future()
        self._is_awaited = True
        if not self.items:
            await waiter
        self._is_awaited = False

    def raise_error(self) -> None:
        """Raise what the producer raised."""
        error, self._error = self._error, None
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # the traceback would hold this frame, and the frame the error

    async def close(self) -> None:
        """End the producer, and wait until its generator is closed on its thread."""
        with self._room:
            self._closed = True
            self._room.notify()
        while self._started and not self.ended:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._error is not None:
            logger.error("A stream failed while it was closed.", exc_info=self._error)
            self._error = None
