"""Django middleware for views that call other services."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import (
    FileResponse,
    HttpRequest,
    JsonResponse,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from .dispatch.errors import FORBIDDEN, NOT_FOUND
from .exceptions import (
    ConnectionLost,
    MessageTimeout,
    MicroserviceError,
    NotConnected,
    RemoteError,
)
from .wire.context import outer_request_id
from .wire.messages import new_id
from .wire.text import shown

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
LONGEST_ID = 128
UNUSABLE = "The service gave no usable answer."


# --- request ids ------------------------------------------------------------------


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
    id_ = given if _is_sane(given) else new_id()
    request.request_id = id_  # type: ignore[attr-defined]
    return id_


def _is_sane(text: str) -> bool:
    return 0 < len(text) <= LONGEST_ID and text.isascii() and text.isprintable()


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


# --- errors -----------------------------------------------------------------------


class RemoteErrorMiddleware(MiddlewareMixin):
    """Answers for views that let a client's error through.

    504 for a timeout, 503 without a connection, 403, 404 and 400 for the remote's own
    refusals, else 502. The body is ``{"status": "error", "message": ...}`` with the
    remote's message, or a fixed one; of a failed validation with its ``errors``.
    """

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> JsonResponse | None:
        """Return the response for an error of ours, ``None`` for any other."""
        if not isinstance(exception, MicroserviceError):
            return None
        status, body = answer_for(exception)
        where, reason = shown(request.path), shown(str(exception))
        logger.warning("%s %s: %d: %s", request.method, where, status, reason)
        return JsonResponse({"status": "error", **body}, status=status)


def answer_for(error: MicroserviceError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body for an error of a client."""
    if isinstance(error, RemoteError):
        return _answer_for_remote(error)
    for kind, status, message in _LOCAL:
        if isinstance(error, kind):
            return status, {"message": message}
    return 502, {"message": UNUSABLE}


_LOCAL: tuple[tuple[type[MicroserviceError], int, str], ...] = (
    (MessageTimeout, 504, "The service did not answer in time."),
    (NotConnected, 503, "The service cannot be reached."),
    (ConnectionLost, 503, "The connection to the service was lost."),
)
_REMOTE = {FORBIDDEN: 403, NOT_FOUND: 404}


def _answer_for_remote(error: RemoteError) -> tuple[int, dict[str, Any]]:
    value = error.error
    is_ours = isinstance(value, dict) and isinstance(value.get("message"), str)
    if not is_ours and not isinstance(value, str):
        return 502, {"message": UNUSABLE}
    body = {"message": error.message}
    if is_ours and isinstance(value.get("errors"), list):
        return 400, {**body, "errors": value["errors"]}
    return _REMOTE.get(error.message, 502), body
