"""How long the calls of a view took: one middleware measures, the other one tells."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

_took: ContextVar[list[float] | None] = ContextVar("took", default=None)


def MeasureMiddleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:  # noqa: N802
    """Measure a client's calls, also those that fail: for a client's ``MIDDLEWARE``."""
    if iscoroutinefunction(get_response):

        async def ameasure(call: Any) -> Any:
            with _measured():
                return await get_response(call)

        return ameasure

    def measure(call: Any) -> Any:
        with _measured():
            return get_response(call)

    return measure


@sync_and_async_middleware
def ServerTimingMiddleware(  # noqa: N802 - in settings it stands among classes
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], Any]:
    """Put the milliseconds of a view's calls into the header ``Server-Timing``."""
    if iscoroutinefunction(get_response):

        async def atell(request: HttpRequest) -> HttpResponseBase:
            took = _begun()
            return _told(await get_response(request), took)

        return atell

    def tell(request: HttpRequest) -> HttpResponseBase:
        took = _begun()
        return _told(get_response(request), took)

    return tell


def _begun() -> list[float]:
    took: list[float] = []
    _took.set(took)
    return took


@contextmanager
def _measured() -> Iterator[None]:
    began = perf_counter()
    try:
        yield
    finally:
        took = _took.get()
        if took is not None:
            took.append(perf_counter() - began)


def _told(response: HttpResponseBase, took: list[float]) -> HttpResponseBase:
    if took:
        response.headers["Server-Timing"] = f"service;dur={sum(took) * 1000:.3f}"
    return response
