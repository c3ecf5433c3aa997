"""What settings say of the two ends."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..dispatch.handlers import Handler
from ..transports.base import Transport

DEFAULT_TIMEOUT = 5.0


class ClientConfig(NamedTuple):
    """What settings say of a client; ``timeout`` in seconds, ``None`` for ever."""

    transport: Transport
    timeout: float | None = DEFAULT_TIMEOUT
    middleware: tuple[Any, ...] = ()
    serve: Callable[[], Any] | None = None
    """Serves the memory transport's other side on the running loop."""


class ServerConfig(NamedTuple):
    """What settings say of a server.

    ``handlers`` are those that it offers, ``middleware`` stands around each of them,
    outermost first, ``concurrency`` is the most messages in flight.
    """

    transport: Transport
    handlers: Sequence[Handler]
    middleware: tuple[Any, ...] = ()
    concurrency: int = 100
    log_messages: bool = False
