"""An HTTP answer for each error of a client."""

import logging
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from ..dispatch.errors import FORBIDDEN, NOT_FOUND
from ..exceptions import (
    ConnectionLost,
    MessageTimeout,
    MicroserviceError,
    NotConnected,
    RemoteError,
    TransportRefused,
)
from ..wire.text import shown

logger = logging.getLogger(__name__)

UNUSABLE = "The service gave no usable answer."


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
    (TransportRefused, 503, "The service cannot be reached."),
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
