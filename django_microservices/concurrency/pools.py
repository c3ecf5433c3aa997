"""What runs sync code for a loop: what it is given, and what it offers."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Job(Protocol):
    """What a thread carries out for the loop."""

    def run(self) -> None:
        """Do the work, on a thread of the pool; an exception is only logged."""

    def finish(self) -> None:
        """Take the result up, on the loop's thread, some time after :meth:`run`.

        It is not called where the loop is closed by then.
        """


class Pool(Protocol):
    """Threads for sync code: real ones, or the caller's own in a test."""

    def submit(self, job: Job, /) -> None:
        """Run ``job.run()`` on a thread and then ``job.finish()`` on the loop."""

    async def call(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Run a sync piece on a thread, in the caller's context."""

    def stream(self, open_: Callable[[], Any], /) -> AsyncGenerator[Any, None]:
        """Iterate a sync iterator, whole on one thread."""

    def database_thread(self) -> AbstractAsyncContextManager[None]:
        """Give the async ORM calls inside a block a thread of the pool."""
