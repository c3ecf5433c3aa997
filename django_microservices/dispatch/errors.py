"""Which exceptions may tell a remote peer something, and what."""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404

from ..exceptions import MessageTimeout, MessageTooLarge, RpcException
from ..wire.codecs import encode
from ..wire.text import shown
from ..wire.unreadable import TOO_LARGE
from .payloads import PayloadError

logger = logging.getLogger(__name__)

INTERNAL = "Internal server error"
FORBIDDEN = "Forbidden resource"
NOT_FOUND = "Not found."
TIMED_OUT = "The handler ran out of time."
_FIXED = (
    (MessageTimeout, TIMED_OUT),
    (MessageTooLarge, TOO_LARGE),
    (PermissionDenied, FORBIDDEN),
    (Http404, NOT_FOUND),
)


def status_error(message: Any, **more: Any) -> dict[str, Any]:
    """Return the error object that Nest's default filter makes."""
    return {"status": "error", "message": message, **more}


INTERNAL_ERROR = encode(status_error(INTERNAL))
TIMED_OUT_ERROR = encode(status_error(TIMED_OUT))
"""By this, too, a client of ours knows that time ran out on the other side."""


def error_value(exception: BaseException) -> Any:
    """Return the JSON value that travels for an exception.

    Only the exceptions named here carry text of their own; for any other the fixed
    text of Nest's default filter travels, whatever ``DEBUG`` says.
    """
    if isinstance(exception, RpcException):
        return _own_error(exception.error)
    if isinstance(exception, PayloadError):
        return exception.as_error()
    if isinstance(exception, ValidationError):
        return _validation_error(exception).as_error()
    fixed = (text for kind, text in _FIXED if isinstance(exception, kind))
    return status_error(next(fixed, INTERNAL))


def error_text(exception: BaseException) -> bytes:
    """Return what travels for an exception; the fixed text where its own cannot."""
    try:
        return encode(error_value(exception))
    except Exception:
        name = type(exception).__name__
        logger.exception("The error value of %s cannot travel.", name)
        return INTERNAL_ERROR


def reason_of(exception: BaseException) -> str:
    """Say in a line why a handler failed; the details are in the log."""
    name = type(exception).__name__
    return f"{name}: {shown(str(exception))}" if is_expected(exception) else name


def is_expected(exception: BaseException) -> bool:
    """Whether an exception is an answer rather than a defect, so needs no traceback."""
    return isinstance(
        exception,
        RpcException | PayloadError | ValidationError | PermissionDenied | Http404,
    )


def _own_error(error: Any) -> Any:
    """Wrap what is neither an object nor a list, as ``BaseRpcExceptionFilter`` does.

    Bare, null, 0 and false would be no error at all to Nest's client.
    """
    return error if encode(error)[:1] in b"{[" else status_error(error)


def _validation_error(exception: ValidationError) -> PayloadError:
    by_field = (
        exception.message_dict
        if hasattr(exception, "error_dict")
        else {"": exception.messages}
    )
    return PayloadError(
        {"path": "" if field == "__all__" else field, "message": str(text)}
        for field, texts in by_field.items()
        for text in texts
    )
