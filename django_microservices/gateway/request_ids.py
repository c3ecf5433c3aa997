"""An id for each HTTP request, which follows it through messages and log records."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from ..wire.context import is_request_id, outer_request_id
from ..wire.messages import new_id

HEADER = "X-Request-ID"


@sync_and_async_middleware
def RequestIdMiddleware(  # noqa: N802 - in settings it stands among classes
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], Any]:
    """Give each request an id that follows it through every message and log record.

    A sane ``X-Request-ID`` is kept, any other replaced; it is ``request.request_id``
    and a header of the response.
    """
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> HttpResponseBase:
            id_ = _mark(request)
            with _inside(id_):
                return _marked(await get_response(request), id_)

        return amiddleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        id_ = _mark(request)
        with _inside(id_):
            return _marked(get_response(request), id_)

    return middleware


def _mark(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    id_ = given if is_request_id(given) else new_id()
    request.request_id = id_  # type: ignore[attr-defined]
    return id_


@contextmanager
def _inside(id_: str) -> Iterator[None]:
    before = outer_request_id.get()
    outer_request_id.set(id_)
    try:
        yield
    finally:
        outer_request_id.set(before)


def _marked(response: HttpResponseBase, id_: str) -> HttpResponseBase:
    response.headers.setdefault(HEADER, id_)
    is_file = isinstance(response, FileResponse)
    if isinstance(response, StreamingHttpResponse) and not is_file:
        # Its content is made when this middleware is long left.
        content: Any = response.streaming_content
        wrap: Any = _astreamed if response.is_async else _streamed
        response.streaming_content = wrap(content, id_)
    return response


def _streamed(content: Iterator[bytes], id_: str) -> Iterator[bytes]:
    while True:
        with _inside(id_):
            part = next(content, None)
        if part is None:
            return
        yield part


async def _astreamed(
    content: AsyncGenerator[bytes, None], id_: str
) -> AsyncIterator[bytes]:
    async with aclosing(content):
        while True:
            with _inside(id_):
                part = await anext(content, None)
            if part is None:
                return
            yield part
