"""Log records that say which message they belong to, and where they go by default."""

import logging
from typing import Any

from .wire.context import MessageContext, current_context, current_request_id
from .wire.text import shown

LOGGER = "django_microservices"
NOTHING = "-"


class MessageFilter(logging.Filter):
    """Puts the message at hand on every record; for ``LOGGING["filters"]``.

    The attributes are ``request_id``, ``message_id``, ``pattern``, ``server`` and
    ``handler``, each "-" where there is none. They are escaped and cut, since peers
    choose some of them. In a view only ``request_id`` is known (see
    ``gateway.RequestIdMiddleware``).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        given = record.__dict__.get("message_context")
        context = given or current_context()
        request_id = given.request_id if given else current_request_id()
        record.__dict__.update(
            _described(context), request_id=_shown(request_id or _of_view(record))
        )
        return True


def _of_view(record: logging.LogRecord) -> Any:
    """Return the id of the HTTP request that a record of Django brings.

    Django logs answers of 4xx and 5xx when the middleware has been left.
    """
    return getattr(getattr(record, "request", None), "request_id", None)


def _described(context: MessageContext[Any] | None) -> dict[str, str]:
    if context is None:
        return dict.fromkeys(("message_id", "pattern", "server", "handler"), NOTHING)
    return {
        "message_id": _shown(context.message_id),
        "pattern": _shown(context.pattern),
        "server": _shown(context.server),
        "handler": _shown(getattr(context.handler, "name", None)),
    }


def _shown(value: Any) -> str:
    return NOTHING if value is None or value == "" else shown(value)


def show_on_console() -> None:
    """Write the package's records of INFO and above to stderr, if nobody writes them.

    As ``runserver`` shows its requests: ``LOGGING`` that names this logger, or the root
    logger, is left alone.
    """
    logger = logging.getLogger(LOGGER)
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter(
            "[%(asctime)s] %(levelname)s %(message)s", "%d/%b/%Y %H:%M:%S"
        )
    )
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
