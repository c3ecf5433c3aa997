"""Which exceptions may tell a remote peer something, and what."""

from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404

from ..exceptions import MessageTimeout, RpcException
from .payloads import PayloadError

INTERNAL = "Internal server error"
FORBIDDEN = "Forbidden resource"
NOT_FOUND = "Not found."
TIMED_OUT = "The handler ran out of time."


def status_error(message: str, **more: Any) -> dict[str, Any]:
    """Return the error object that Nest's default filter makes."""
    return {"status": "error", "message": message, **more}


def error_value(exception: BaseException) -> Any:
    """Return the JSON value that travels for an exception.

    Only the exceptions named here carry text of their own; for any other the fixed
    text of Nest's default filter travels, whatever ``DEBUG`` says.
    """
    if isinstance(exception, RpcException):
        error = exception.error
        return status_error(error) if isinstance(error, str) else error
    if isinstance(exception, PayloadError):
        return exception.as_error()
    if isinstance(exception, MessageTimeout):
        return status_error(TIMED_OUT)
    if isinstance(exception, ValidationError):
        return _validation_error(exception)
    if isinstance(exception, PermissionDenied):
        return status_error(FORBIDDEN)
    if isinstance(exception, Http404):
        return status_error(NOT_FOUND)
    return status_error(INTERNAL)


def is_expected(exception: BaseException) -> bool:
    """Whether an exception is an answer rather than a defect, so needs no traceback."""
    return isinstance(
        exception,
        RpcException | PayloadError | ValidationError | PermissionDenied | Http404,
    )


def _validation_error(exception: ValidationError) -> dict[str, Any]:
    by_field = (
        exception.message_dict
        if hasattr(exception, "error_dict")
        else {"": exception.messages}
    )
    errors = [
        {"path": "" if field == "__all__" else field, "message": str(text)}
        for field, texts in by_field.items()
        for text in texts
    ]
    message = errors[0]["message"] if len(errors) == 1 else "Validation failed."
    return status_error(message, errors=errors)

