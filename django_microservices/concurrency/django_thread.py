"""The thread that async ORM calls share unless they are given one of the pool."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync

from .hygiene import Databases

P = ParamSpec("P")
T = TypeVar("T")

_in_use = [SyncToAsync.single_thread_executor]  # asgiref's, and those in its place


class DjangoThread(ThreadPoolExecutor):
    """Stands in for asgiref's one thread, until :meth:`close`.

    Django closes what is broken at the ends of a request, and here is none: without
    this one restart of the database would fail every later call. A connection is kept
    for ever, because a reader of ``aiterator()`` comes back to it.
    """

    def __init__(self) -> None:
        super().__init__(1, "microservice-django", initializer=self._begin)
        self._databases: Databases | None = None
        _in_use.append(self)
        SyncToAsync.single_thread_executor = self

    def _begin(self) -> None:
        self._databases = Databases(None)

    def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Call ``function``, its database connections looked after."""
        return super().submit(self._call, partial(function, *args, **kwargs))

    def _call(self, function: Callable[[], T]) -> T:
        databases = self._databases
        assert databases is not None
        if databases.opened:
            databases.before(time.monotonic())
        try:
            return function()
        finally:
            if databases.opened:
                databases.after()

    def close(self) -> None:
        """Put back what it stands in for, and close the connections of this one."""
        _in_use.remove(self)
        SyncToAsync.single_thread_executor = _in_use[-1]
        if self._databases is not None:
            with suppress(RuntimeError):  # the interpreter's exit has ended all threads
                super().submit(self._databases.close)
        self.shutdown(wait=False)
