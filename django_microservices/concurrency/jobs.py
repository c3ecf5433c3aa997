"""What async code has a thread do: one call, or several on the same thread."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

from .hygiene import run_in_context

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class FunctionJob(Generic[T]):
    """The job that runs one function in its caller's context."""

    def __init__(
        self, function: Callable[[], T], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.context = copy_context()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._function = function
        self._value: T
        self._error: BaseException | None = None

    @property
    def abandoned(self) -> bool:
        """Whether its caller has gone."""
        return self.ended.cancelled()

    def run(self) -> None:
        """Call the function, unless its caller has gone already."""
        if not self.ended.cancelled():
            run_in_context(self.context, self._invoke)

    def _invoke(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - it travels to the caller
            self._error = error

    def finish(self) -> None:
        """Tell the caller."""
        if not self.ended.done():
            self.ended.set_result(None)
        elif self._error is not None:
            logger.warning("A call failed after its caller left.", exc_info=self._error)

    def refuse(self, error: Exception) -> None:
        """Tell the caller that the function will never run."""
        self._error = error
        self.finish()

    def result(self) -> T:
        """Return or raise what the function did."""
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # the traceback holds this frame, the frame the call


class Lease(Executor):
    """One thread of the pool, from the first call until it is given back."""

    def __init__(self, take: Callable[["Lease"], None]) -> None:
        self._take = take
        self._is_taken = False
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._calls = SimpleQueue()

    def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Call ``function`` on the thread; the first call takes one."""
        if not self._is_taken:
            self._take(self)
            self._is_taken = True
        future: Future[T] = Future()
        self._calls.put((future, partial(function, *args, **kwargs)))
        return future

    def run(self) -> None:
        """Make the calls, until the thread is given back."""
        while (call := self._calls.get()) is not None:
            _settle(*call)

    def finish(self) -> None:
        """Do nothing: the thread is back in the pool already."""

    def refuse(self, error: Exception) -> None:
        """Tell those who wait that no thread will come."""
        self._is_taken = False
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None and call[0].set_running_or_notify_cancel():
                call[0].set_exception(error)

    def give_back(self) -> None:
        """Let the thread go, after the calls that were made."""
        self._calls.put(None)


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it travels to the caller
        future.set_exception(error)
