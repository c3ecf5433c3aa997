"""What is told of a message on the server: signals, and a line in the log."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from ..signals import message_failed, message_handled, message_received

if TYPE_CHECKING:
    from .delivery import Delivery

logger = logging.getLogger(__name__)


def announce(delivery: "Delivery") -> float:
    """Tell that it was received; return when that was."""
    started = perf_counter()
    if message_received.receivers:
        sender = type(delivery.server)
        message_received.send_robust(sender, context=delivery.context)
    return started


def observe(delivery: "Delivery") -> None:
    """Tell how it ended, and after how many seconds."""
    sender, seconds = type(delivery.server), perf_counter() - delivery.started
    context, error = delivery.context, delivery.error
    if delivery.server.log_messages:
        outcome = "ok" if error is None else type(error).__name__
        logger.info(
            "%s %s %.1f ms",
            delivery.shown,
            outcome,
            seconds * 1000,
            extra=delivery.extra,
        )
    if error is not None:
        message_failed.send_robust(
            sender, context=context, exception=error, seconds=seconds
        )
    else:
        message_handled.send_robust(sender, context=context, seconds=seconds)
