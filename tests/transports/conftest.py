"""Every asynchronous test of this folder runs on asyncio's loop and on uvloop's."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from .peers import Serve, Serving


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def serve(free_port: Callable[[], int]) -> Serve:
    """Return a function that serves the TCP wire, as an async context manager."""

    def serve(*args: object, **options: object) -> Serving:
        return Serving(free_port(), *args, **options)  # type: ignore[arg-type]

    return serve
