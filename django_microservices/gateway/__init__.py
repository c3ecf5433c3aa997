"""Django middleware for views that call other services."""

from .errors import RemoteErrorMiddleware, answer_for
from .request_ids import RequestIdMiddleware

__all__ = ["RemoteErrorMiddleware", "RequestIdMiddleware", "answer_for"]
