"""Tasks that run up to their first wait at once, where Python can."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 12):  # pragma: no cover - one of the two runs

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Run a coroutine up to its first wait at once, the rest in a task."""
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
else:  # pragma: no cover

    def start_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Run a coroutine in a task."""
        return loop.create_task(coroutine)
