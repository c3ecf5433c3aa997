"""Who wants to hear of an end's connection."""

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

EVENTS = ("connect", "disconnect", "error")


class Listeners:
    """Callbacks by event; one that fails is logged and does no harm."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[..., Any]]] = {}

    def add(self, event: str, callback: Callable[..., Any]) -> None:
        """Call ``callback`` at ``event``; raise ``ValueError`` for an unknown one."""
        if event not in EVENTS:
            message = f"There is no event {event!r}; there are {', '.join(EVENTS)}."
            raise ValueError(message)
        self._callbacks.setdefault(event, []).append(callback)

    def call(self, event: str, *args: Any) -> None:
        """Tell everybody."""
        for callback in self._callbacks.get(event, ()):
            try:
                callback(*args)
            except Exception:
                logger.exception("A callback for %r failed.", event)
